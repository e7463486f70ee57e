// Load for HTTP servers that stream: as many streams as asked for, each sending its next request when one is answered.
//
//   load --port P --path /v1/chat/completions --body FILE --streams N --seconds S …    prints one JSON object
//   load --serve P --events N                                                          a server to measure it against
//
// One thread, no allocation per event. Every answer is compared, byte by byte, with what the synthetic engine writes:
// a request with seed s gets the tokens of TABLE from place s on. "@@@@@@@@@@" in the body becomes the seed.
// --record FILE writes a line for each gap ("gap", its end, its length) and answer ("answer", when it was asked for, when its
// first text came), in seconds of CLOCK_MONOTONIC, the same for all processes. "begin" and "end" are printed when the measured time begins and ends, so that others can measure beside it.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using Clock = std::chrono::steady_clock;
using std::string;
using std::string_view;

constexpr string_view PLACEHOLDER = "@@@@@@@@@@";
constexpr uint64_t FIRST_SEED = 1000000000;  // ten digits, so that all bodies are of one length
constexpr double DRAIN_SECONDS = 60;         // for answers under way when the measured time is over

[[noreturn]] void die(const string& why) {
  fprintf(stderr, "load: %s\n", why.c_str());
  exit(2);
}

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

double monotonic(Clock::time_point moment) { return seconds(moment.time_since_epoch()); }

double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

using Options = std::map<string, string>;

string option(const Options& options, const string& name, const string& otherwise) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

string content(const string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) die("cannot read " + path);
  return string(std::istreambuf_iterator<char>(file), {});
}

// --- What answers should say ---------------------------------------------------------------------------------------

// The texts of the engine's tokens, one after the other in a ring; for token ids their decimal digits and a comma each.
struct Ring {
  string text;                 // twice, so that comparisons need not wrap
  size_t size = 0;
  std::vector<size_t> starts;  // of each token
  std::vector<uint32_t> ends;  // at a place of the text: how many tokens end at or before it

  static Ring of(const string& path, bool ids) {
    Ring ring;
    std::istringstream lines(content(path));
    for (string line; std::getline(lines, line);) {
      const size_t space = line.find(' ');
      ring.starts.push_back(ring.text.size());
      ring.text += ids ? line.substr(0, space) + "," : line.substr(space + 1);
    }
    ring.size = ring.text.size();
    if (ring.size == 0) die("no tokens in " + path);
    ring.ends.assign(ring.size + 1, 0);
    for (size_t token = 1; token <= ring.starts.size(); ++token)
      ring.ends[token < ring.starts.size() ? ring.starts[token] : ring.size] = 1;
    for (size_t at = 1; at <= ring.size; ++at) ring.ends[at] += ring.ends[at - 1];
    ring.text += ring.text;
    return ring;
  }

  size_t start(uint64_t seed) const { return starts[seed % starts.size()]; }
  // Tokens that end within the first `length` bytes from `start` on.
  uint64_t tokens(size_t start, uint64_t length) const {
    const uint64_t rounds = (start + length) / size, rest = (start + length) % size;
    return rounds * starts.size() + ends[rest] - ends[start];
  }
};

// What an answer has said so far.
struct Checked {
  size_t start = 0;
  uint64_t length = 0;
  bool wrong = false;

  void take(const Ring& ring, const char* text, size_t count) {
    while (count != 0) {
      const size_t at = (start + length) % ring.size, part = std::min(count, ring.size);
      wrong |= memcmp(ring.text.data() + at, text, part) != 0;
      length += part, text += part, count -= part;
    }
  }
};

// --- HTTP ------------------------------------------------------------------------------------------------------------

// Takes the framing off a response; knows Content-Length and chunks.
class Response {
 public:
  int status = 0;
  bool done = false, keeps_alive = true;
  string body;  // what has not been taken yet

  void feed(const char* data, size_t size) {
    const char* end = data + size;
    while (data < end && !done) {
      if (state_ == HEAD || state_ == CHUNK_HEAD || state_ == CHUNK_TAIL) {
        const char* newline = static_cast<const char*>(memchr(data, '\n', end - data));
        line_.append(data, newline ? newline - data : end - data);
        data = newline ? newline + 1 : end;
        if (newline) take_line();
      } else {
        const size_t part = std::min<uint64_t>(left_, end - data);
        body.append(data, part);
        data += part, left_ -= part;
        if (left_ == 0) state_ == BODY ? void(done = true) : void(state_ = CHUNK_TAIL);
      }
    }
  }
  bool ends_with_connection() const { return state_ == BODY && !has_length_; }

 private:
  enum State { HEAD, BODY, CHUNK_HEAD, CHUNK, CHUNK_TAIL };

  void take_line() {
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (state_ == HEAD) {
      take_header();
    } else if (state_ == CHUNK_HEAD) {
      left_ = strtoull(line_.c_str(), nullptr, 16);
      state_ = left_ == 0 ? CHUNK_TAIL : CHUNK;
      last_ = left_ == 0;
    } else {
      last_ ? void(done = true) : void(state_ = CHUNK_HEAD);
    }
    line_.clear();
  }

  void take_header() {
    if (line_.empty()) {
      if (chunked_) state_ = CHUNK_HEAD;
      else if (has_length_ && left_ == 0) done = true;
      else {
        state_ = BODY;
        if (!has_length_) left_ = UINT64_MAX;
      }
      return;
    }
    if (status == 0) {
      status = atoi(line_.c_str() + line_.find(' ') + 1);
      return;
    }
    for (char& each : line_) each = tolower(each);
    if (line_.rfind("content-length:", 0) == 0) has_length_ = true, left_ = strtoull(line_.c_str() + 15, nullptr, 10);
    if (line_.rfind("transfer-encoding:", 0) == 0) chunked_ = line_.find("chunked") != string::npos;
    if (line_.rfind("connection:", 0) == 0) keeps_alive = line_.find("close") == string::npos;
  }

  State state_ = HEAD;
  bool chunked_ = false, has_length_ = false, last_ = false;
  uint64_t left_ = 0;
  string line_;
};

// How the content of an answer is found in its events.
struct Dialect {
  string open, close;  // around content
  bool ids;            // content is token ids, as a number or an array of them
};

const std::map<string, Dialect> DIALECTS = {
    {"openai", {"\"content\":\"", "\"", false}},
    {"triton", {"\\\"content\\\":\\\"", "\\\"", false}},  // OpenAI's events as a string within Triton's
    {"engine", {"\"output_ids\":", ",\"", true}},
};

// --- Figures -----------------------------------------------------------------------------------------------------------

struct Times {
  std::vector<float> ms;

  void add(Clock::duration duration) { ms.push_back(seconds(duration) * 1e3f); }
  string json() {
    if (ms.empty()) return "null";
    std::sort(ms.begin(), ms.end());
    const auto at = [&](double share) { return ms[std::min<size_t>(ms.size() - 1, share * ms.size())]; };
    char text[200];
    snprintf(text, sizeof text, "{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f,\"count\":%zu}", at(.5), at(.9),
             at(.99), ms.back(), ms.size());
    return text;
  }
};

struct Figures {
  uint64_t requests = 0, answers = 0, tokens = 0, events = 0, errors = 0, wrong = 0, bytes = 0;
  Times first, gap, whole;
  string error;  // the first one
};

// --- Streams -----------------------------------------------------------------------------------------------------------

struct Plan {
  sockaddr_in address{};
  string head;  // of the request, up to the body
  string body;
  std::vector<size_t> places;  // of the seed in the body
  const Dialect* dialect;
  bool checks;  // texts are compared
  Ring ring;
  uint64_t tokens;  // of a whole answer
  FILE* record;     // or null
  double think;     // seconds between an answer and the next request, at most
};

struct Stream {
  int socket = -1;
  string out;
  size_t sent = 0;
  Response response;
  Checked said;
  string last;  // event
  uint64_t tokens = 0;
  bool active = false, failed = false;
  Clock::time_point begun, heard, due;
};

class Load {
 public:
  Load(Plan plan, size_t streams) : plan_(std::move(plan)), streams_(streams), epoll_(epoll_create1(0)) {}

  string run(double warm_up, double measured, uint64_t most) {
    const auto start = Clock::now();
    most_ = most;
    for (auto& each : streams_) each.due = start + pause();
    work(start, warm_up);
    begin();
    const auto from = Clock::now();
    const double cpu = cpu_seconds();
    work(from, measured);
    const double wall = seconds(Clock::now() - from), own = cpu_seconds() - cpu;
    counting_ = false;
    say("end");
    issuing_ = false;
    work(Clock::now(), DRAIN_SECONDS);
    for (auto& each : streams_)
      if (each.active) fail(each, "no end within a minute");
    return json(wall, own);
  }

 private:
  static void say(const char* what) {
    puts(what);
    fflush(stdout);
  }

  void begin() {
    figures_ = {};
    counting_ = true;
    say("begin");
  }

  Clock::duration pause() {
    if (plan_.think == 0) return {};
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
        std::uniform_real_distribution<double>(0, plan_.think)(random_)));
  }

  // Serves the streams for so long, or until there is nothing left to do.
  void work(Clock::time_point from, double limit) {
    epoll_event events[256];
    while (seconds(Clock::now() - from) < limit) {
      const auto now = Clock::now();
      auto wake = now + std::chrono::milliseconds(20);
      bool busy = false;
      for (auto& each : streams_) {
        if (!each.active && issuing_ && (most_ == 0 || begun_ < most_)) {
          if (now >= each.due) send(each);
          else wake = std::min(wake, each.due);
          busy = true;
        }
        busy |= each.active;
      }
      if (!busy) return;
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(wake - Clock::now()).count();
      const timespec wait{0, std::max<long>(0, left)};
      const int count = epoll_pwait2(epoll_, events, 256, &wait, nullptr);
      for (int i = 0; i < count; ++i) {
        Stream& stream = *static_cast<Stream*>(events[i].data.ptr);
        if (events[i].events & EPOLLOUT) write(stream);
        if (stream.socket >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) read(stream);
      }
    }
  }

  void connect(Stream& stream) {
    stream.socket = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(stream.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::connect(stream.socket, reinterpret_cast<const sockaddr*>(&plan_.address), sizeof plan_.address);
    epoll_event event{EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = &stream}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, stream.socket, &event);
  }

  void send(Stream& stream) {
    const uint64_t seed = FIRST_SEED + begun_++;
    stream.out = plan_.head + plan_.body;
    char digits[11];
    snprintf(digits, sizeof digits, "%010llu", static_cast<unsigned long long>(seed));
    for (const size_t place : plan_.places) memcpy(&stream.out[plan_.head.size() + place], digits, 10);
    stream.sent = 0;
    stream.response = {};
    stream.said = {plan_.checks ? plan_.ring.start(seed) : 0, 0, false};
    stream.last.clear();
    stream.tokens = 0;
    stream.active = true, stream.failed = false;
    stream.heard = {};
    if (stream.socket < 0) connect(stream);
    stream.begun = Clock::now();
    figures_.requests += counting_;
    write(stream);
  }

  void write(Stream& stream) {
    while (stream.sent < stream.out.size()) {
      const ssize_t count = ::send(stream.socket, stream.out.data() + stream.sent, stream.out.size() - stream.sent,
                                   MSG_NOSIGNAL);
      if (count < 0) {
        if (errno != EAGAIN && errno != ENOTCONN) fail(stream, strerror(errno));
        return;
      }
      stream.sent += count;
    }
  }

  void read(Stream& stream) {
    static char buffer[1 << 18];
    for (;;) {
      const ssize_t count = ::recv(stream.socket, buffer, sizeof buffer, 0);
      if (count < 0 && errno == EAGAIN) return;
      if (count <= 0) {
        if (stream.active && count == 0 && stream.response.ends_with_connection()) {
          stream.response.keeps_alive = false;
          return end(stream);
        }
        if (stream.active) return fail(stream, count < 0 ? strerror(errno) : "the connection was closed");
        return close(stream);
      }
      if (!stream.active) continue;
      if (counting_) figures_.bytes += count;
      stream.response.feed(buffer, count);
      if (stream.response.status == 200) take_events(stream);
      if (stream.response.done) end(stream);
      if (stream.socket < 0) return;
    }
  }

  void take_events(Stream& stream) {
    string& body = stream.response.body;
    size_t from = 0;
    for (size_t newline; (newline = body.find('\n', from)) != string::npos; from = newline + 1)
      if (newline > from + 1) take_event(stream, string_view(body).substr(from, newline - from));
    body.erase(0, from);
  }

  void take_event(Stream& stream, string_view event) {
    const Dialect& dialect = *plan_.dialect;
    const uint64_t before = stream.tokens;
    if (event != "data: [DONE]") stream.last = event;
    size_t at = 0;
    while ((at = event.find(dialect.open, at)) != string_view::npos) {
      at += dialect.open.size();
      size_t end = event.find(dialect.close, at);
      if (end == string_view::npos) end = event.size();
      take_content(stream, event.substr(at, end - at));
      at = end;
    }
    if (event.find("\"error\":{") != string_view::npos || event.find("\\\"error\\\":{") != string_view::npos ||
        event.find("{\"error\":\"") != string_view::npos)
      stream.failed = true, note(string(event));
    if (stream.tokens == before) return;
    const auto now = Clock::now();
    const bool is_first = stream.heard == Clock::time_point{};
    if (counting_) {
      figures_.tokens += stream.tokens - before;
      ++figures_.events;
      (is_first ? figures_.first : figures_.gap).add(now - (is_first ? stream.begun : stream.heard));
    }
    if (plan_.record && is_first)
      fprintf(plan_.record, "answer %.6f %.6f\n", monotonic(stream.begun), monotonic(now));
    else if (plan_.record)
      fprintf(plan_.record, "gap %.6f %.6f\n", monotonic(now), seconds(now - stream.heard));
    stream.heard = now;
  }

  void take_content(Stream& stream, string_view text) {
    if (text.empty()) return;
    if (!plan_.checks) {
      ++stream.tokens;
      return;
    }
    if (plan_.dialect->ids) {
      static string ids;
      ids.clear();
      for (const char each : text)
        if (isdigit(each) || each == ',') ids += each;
      ids += ',';
      text = ids;
    }
    stream.said.take(plan_.ring, text.data(), text.size());
    stream.tokens = plan_.ring.tokens(stream.said.start, stream.said.length);
  }

  void end(Stream& stream) {
    if (stream.response.status != 200) {
      const string why = std::to_string(stream.response.status) + " " + stream.response.body;
      return fail(stream, why);
    }
    stream.active = false;
    if (stream.failed) {
      ++figures_.errors;
    } else {
      const bool whole = !plan_.checks || (stream.tokens == plan_.tokens && !stream.said.wrong);
      if (!whole)
        ++figures_.wrong, note("a text of " + std::to_string(stream.tokens) + " tokens" +
                               (stream.said.wrong ? ", not the expected one" : "") + ", at its end " + stream.last);
      if (counting_) ++figures_.answers, figures_.whole.add(Clock::now() - stream.begun);
    }
    stream.due = Clock::now() + pause();
    if (!stream.response.keeps_alive) close(stream);
  }

  void fail(Stream& stream, const string& why) {
    ++figures_.errors;
    note(why);
    stream.active = false;
    stream.due = Clock::now() + std::chrono::milliseconds(50);
    close(stream);
  }

  void note(const string& why) {
    if (figures_.error.empty()) figures_.error = why.substr(0, 500);
  }

  void close(Stream& stream) {
    if (stream.socket >= 0) ::close(stream.socket);
    stream.socket = -1;
  }

  string json(double wall, double cpu) {
    string error;
    for (const char each : figures_.error)
      if (each == '"' || each == '\\') error += {'\\', each};
      else if (each >= ' ') error += each;
    std::ostringstream out;
    out << "{\"seconds\":" << wall << ",\"cpu_seconds\":" << cpu << ",\"requests\":" << figures_.requests
        << ",\"answers\":" << figures_.answers << ",\"tokens\":" << figures_.tokens
        << ",\"events\":" << figures_.events << ",\"bytes\":" << figures_.bytes << ",\"errors\":" << figures_.errors
        << ",\"wrong\":" << figures_.wrong << ",\"error\":\"" << error << "\",\"first_ms\":" << figures_.first.json()
        << ",\"gap_ms\":" << figures_.gap.json() << ",\"answer_ms\":" << figures_.whole.json() << "}";
    return out.str();
  }

  Plan plan_;
  std::vector<Stream> streams_;
  int epoll_;
  std::mt19937_64 random_{1};
  uint64_t begun_ = 0, most_ = 0;
  bool counting_ = false, issuing_ = true;
  Figures figures_;
};

// --- A server that does nothing but write ------------------------------------------------------------------------------

// Answers each request with events of one token each, one write per event, all streams in turn.
void serve(int port, int events) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET, address.sin_port = htons(port), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(listener, 1024))
    die(strerror(errno));
  const string event =
      "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":"
      "1700000000,\"model\":\"tiny-chat\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":"
      "{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
  char size[20];
  snprintf(size, sizeof size, "%zx\r\n", event.size());
  const string chunk = size + event + "\r\n", last = "0\r\n\r\n";
  const string head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::map<int, int> left;  // events that each connection still gets
  std::map<int, string> heard;
  const int epoll = epoll_create1(0);
  epoll_event interest{EPOLLIN, {.fd = listener}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest);
  epoll_event found[256];
  for (;;) {
    const int count = epoll_wait(epoll, found, 256, left.empty() ? -1 : 0);
    for (int i = 0; i < count; ++i) {
      const int socket = found[i].data.fd;
      if (socket == listener) {
        const int made = accept4(listener, nullptr, nullptr, 0);
        setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        interest = {EPOLLIN, {.fd = made}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, made, &interest);
        continue;
      }
      char buffer[1 << 16];
      const ssize_t got = recv(socket, buffer, sizeof buffer, 0);
      if (got <= 0) {
        close(socket), left.erase(socket), heard.erase(socket);
        continue;
      }
      heard[socket].append(buffer, got);
      if (heard[socket].find("@end") == string::npos) continue;  // the request's last bytes
      heard[socket].clear();
      left[socket] = events;
      ::send(socket, head.data(), head.size(), MSG_NOSIGNAL);
    }
    for (auto each = left.begin(); each != left.end();) {
      const string& out = each->second > 0 ? chunk : last;
      ::send(each->first, out.data(), out.size(), MSG_NOSIGNAL);
      each = each->second-- > 0 ? std::next(each) : left.erase(each);
    }
  }
}

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i + 1 < count; i += 2) options[arguments[i]] = arguments[i + 1];
  if (count % 2 == 0) die("each option has one value");
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_TIMERSLACK, 1UL);
  const auto number = [&](const char* name, const char* otherwise) {
    return atof(option(options, name, otherwise).c_str());
  };
  if (options.count("--serve")) serve(number("--serve", "0"), number("--events", "128"));

  Plan plan;
  const string host = option(options, "--host", "127.0.0.1"), port = option(options, "--port", "80");
  plan.address.sin_family = AF_INET;
  plan.address.sin_port = htons(atoi(port.c_str()));
  if (inet_pton(AF_INET, host.c_str(), &plan.address.sin_addr) != 1) die("--host wants an IPv4 address");
  plan.body = content(option(options, "--body", ""));
  for (size_t at = 0; (at = plan.body.find(PLACEHOLDER, at)) != string::npos; at += 10) plan.places.push_back(at);
  const string headers = option(options, "--header", "");
  plan.head = "POST " + option(options, "--path", "/") + " HTTP/1.1\r\nHost: " + host + ":" + port +
              "\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n" +
              (headers.empty() ? "" : headers + "\r\n") + "Content-Length: " + std::to_string(plan.body.size()) +
              "\r\n\r\n";
  const auto dialect = DIALECTS.find(option(options, "--dialect", "openai"));
  if (dialect == DIALECTS.end()) die("--dialect wants openai, triton or engine");
  plan.dialect = &dialect->second;
  plan.checks = options.count("--table") != 0;
  if (plan.checks) plan.ring = Ring::of(options["--table"], plan.dialect->ids);
  plan.tokens = number("--tokens", "0");
  plan.think = number("--think", "0");
  plan.record = options.count("--record") ? fopen(options["--record"].c_str(), "w") : nullptr;

  Load load(std::move(plan), number("--streams", "1"));
  puts(load.run(number("--warm-up", "0"), number("--seconds", "5"), number("--requests", "0")).c_str());
  if (plan.record) fclose(plan.record);
}
