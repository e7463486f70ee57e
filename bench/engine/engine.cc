#include "engine.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>

using namespace std::chrono_literals;

namespace {

constexpr auto POLL_WAIT = 20ms;
constexpr auto SESSION_TIMEOUT = 30s;
constexpr auto LOOK_INTERVAL = 50ms;  // between looks for clients that have gone
enum Command { HELLO = 0, SUBMIT = 1, POLL = 2, CANCEL = 3, NONE = -1 };

}  // namespace

Engine::Engine(Settings settings) : settings_(std::move(settings)), thread_([this] { run(); }) {}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

// --- Requests, on Triton's thread ----------------------------------------------------------------------------------

void Engine::receive(TRITONBACKEND_Request* request) {
  const Inputs inputs(request);
  auto channel = std::make_unique<Channel>(request);
  switch (inputs.scalar<int32_t>("session_command", NONE)) {
    case HELLO: hello(std::move(channel)); break;
    case SUBMIT: submit(inputs, std::move(channel)); break;
    case POLL: poll(inputs, std::move(channel)); break;
    case CANCEL: cancel(inputs, std::move(channel)); break;
    default:
      if (inputs.scalar<bool>("stop", false))
        stop(inputs, std::move(channel));
      else
        generate(inputs, std::move(channel));
  }
  failed(TRITONBACKEND_RequestRelease(request, REQUEST_RELEASE_ALL));
}

std::string Engine::refusal(int prompt, int output_len) const {
  if (prompt == 0) return "input_ids is missing or empty";
  if (prompt >= settings_.max_seq_len)
    return "Prompt length (" + std::to_string(prompt) + ") exceeds maximum input length (" +
           std::to_string(settings_.max_seq_len - 1) + ").";
  if (output_len <= 0) return "request_output_len must be above 0";
  return "";
}

std::shared_ptr<Sequence> Engine::sequence(const Inputs& inputs, int prompt, int output_len) const {
  auto made = std::make_shared<Sequence>();
  made->place = inputs.scalar<uint64_t>("seed", 0) % settings_.tokens.size();
  made->left = std::min(output_len, settings_.max_seq_len - prompt);
  made->streaming = inputs.scalar<bool>("streaming", false);
  made->request_id = inputs.id();
  return made;
}

void Engine::generate(const Inputs& inputs, std::unique_ptr<Channel> channel) {
  const bool text = inputs.scalar<int32_t>("request_output_len", -1) < 0;
  const int prompt = text ? 1 : inputs.array<int32_t>("input_ids").size();
  const int output_len = inputs.scalar<int32_t>(text ? "max_tokens" : "request_output_len", 0);
  const std::string why = refusal(prompt, output_len);
  if (!why.empty()) return channel->fail(why);
  auto made = sequence(inputs, prompt, output_len);
  made->channel = std::move(channel);
  made->text = text;
  if (text) made->streaming = inputs.scalar<bool>("stream", false);
  std::lock_guard lock(mutex_);
  enter(std::move(made));
}

void Engine::stop(const Inputs& inputs, std::unique_ptr<Channel> channel) {
  const std::string id = inputs.id();
  {
    std::lock_guard lock(mutex_);
    for (const auto& sequences : {std::vector(waiting_.begin(), waiting_.end()), running_})
      for (const auto& each : sequences)
        if (each->channel && each->request_id == id) each->cancelled = true;
  }
  channel->end();
}

void Engine::hello(std::unique_ptr<Channel> channel) {
  const std::string about = element(
      "{\"version\":1,\"max_seq_len\":" + std::to_string(settings_.max_seq_len) +
      ",\"max_batch_size\":" + std::to_string(settings_.max_batch_size) + ",\"checkpoint\":\"" + settings_.checkpoint +
      "\",\"poll_wait_ms\":20,\"session_timeout_ms\":30000,\"guide_types\":[]}");
  channel->send({{"session_texts", TYPE_BYTES, {1, 1}, about.data(), about.size()}}, true);
}

void Engine::submit(const Inputs& inputs, std::unique_ptr<Channel> channel) {
  const int prompt = inputs.array<int32_t>("input_ids").size();
  const int output_len = inputs.scalar<int32_t>("request_output_len", 0);
  const int32_t id = inputs.scalar<int32_t>("session_sequence_ids", 0);
  const std::string why = refusal(prompt, output_len);
  if (!why.empty() || id <= 0) return channel->fail(id <= 0 ? "session_sequence_ids: wanted one id > 0" : why);
  auto made = sequence(inputs, prompt, output_len);
  made->id = id;
  {
    std::lock_guard lock(mutex_);
    Session& session = sessions_[inputs.scalar<uint64_t>("session_id", 0)];
    session.last_poll = Clock::now();
    made->session = &session;
    session.live[id] = made;
    enter(std::move(made));
  }
  send_events(*channel, {});
}

void Engine::poll(const Inputs& inputs, std::unique_ptr<Channel> channel) {
  std::vector<int32_t> events;
  {
    std::lock_guard lock(mutex_);
    const auto found = sessions_.find(inputs.scalar<uint64_t>("session_id", 0));
    if (found == sessions_.end())
      return channel->fail("unknown session: nothing was submitted to it, or it has been given up");
    Session& session = found->second;
    const auto now = session.last_poll = Clock::now();
    if (session.news.empty()) {
      std::swap(session.poll, channel);  // an older one is answered with nothing
      session.poll_deadline = now + POLL_WAIT;
      if (session.poll_deadline < next_wake() || idle_) changed_.notify_one();
    } else {
      events = take_news(session);
    }
  }
  if (channel) send_events(*channel, events);
}

void Engine::cancel(const Inputs& inputs, std::unique_ptr<Channel> channel) {
  {
    std::lock_guard lock(mutex_);
    const auto found = sessions_.find(inputs.scalar<uint64_t>("session_id", 0));
    if (found != sessions_.end())
      for (const int32_t id : inputs.array<int32_t>("session_sequence_ids"))
        if (const auto live = found->second.live.find(id); live != found->second.live.end())
          live->second->cancelled = true;
  }
  send_events(*channel, {});
}

void Engine::enter(std::shared_ptr<Sequence> sequence) {
  if (idle_ && !may_step()) next_step_ = Clock::now() + settings_.step_us * 1us;
  waiting_.push_back(std::move(sequence));
  if (idle_) changed_.notify_one();
}

// --- Steps, on the engine's thread ---------------------------------------------------------------------------------

void Engine::run() {
  pthread_setname_np(pthread_self(), "engine");
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const auto now = Clock::now();
    if (may_step() && now >= next_step_) {
      // A step that comes late does not make up for what was missed.
      next_step_ = std::max(next_step_ + step(), now);
    }
    if (now >= next_look_) {
      look_for_cancelled();
      next_look_ = now + LOOK_INTERVAL;
    }
    answer_polls(now);
    flush(lock);
    const auto wake = next_wake();
    if (wake > Clock::now()) {
      idle_ = !may_step();
      changed_.wait_until(lock, wake);
      idle_ = false;
    }
  }
  for (const auto& each : running_)
    if (each->channel) each->channel->end();
  for (const auto& each : waiting_)
    if (each->channel) each->channel->end();
}

bool Engine::may_step() const { return !running_.empty() || !waiting_.empty(); }

Clock::time_point Engine::next_wake() const {
  auto wake = running_.empty() ? Clock::now() + 1s : next_look_;
  if (may_step()) wake = std::min(wake, next_step_);
  for (const auto& [id, session] : sessions_)
    if (session.poll) wake = std::min(wake, session.poll_deadline);
  return wake;
}

// How long the step takes.
Clock::duration Engine::step() {
  while (running_.size() < settings_.max_batch_size && !waiting_.empty()) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  Clock::duration took = settings_.step_us * 1us;
  if (settings_.tokens_per_s != 0)
    took = std::max<Clock::duration>(
        took, running_.size() * settings_.tokens_per_step * 1'000'000'000ns / settings_.tokens_per_s);
  const auto ended = [&](const auto& each) { return !advance(*each); };
  for (const auto& each : running_)
    if (each->channel) to_send_.push_back(each);
  running_.erase(std::remove_if(running_.begin(), running_.end(), ended), running_.end());
  return took;
}

bool Engine::advance(Sequence& sequence) {
  Session* session = sequence.session;
  if (sequence.cancelled) {
    sequence.status = Status::CANCELLED;
  } else {
    const int count = std::min(settings_.tokens_per_step, sequence.left);
    for (int i = 0; i < count; ++i) {
      sequence.news.push_back(settings_.tokens[sequence.place]);
      if (++sequence.place == settings_.tokens.size()) sequence.place = 0;
    }
    sequence.left -= count;
    if (sequence.left == 0) sequence.status = Status::LENGTH;
  }
  if (session && !sequence.is_news) {
    if (const auto live = session->live.find(sequence.id); live != session->live.end()) {
      sequence.is_news = true;
      session->news.push_back(live->second);
    }
  }
  return sequence.status == Status::RUNNING;
}

void Engine::look_for_cancelled() {
  for (const auto& each : running_)
    if (each->channel && each->channel->is_cancelled()) each->cancelled = true;
  const auto limit = Clock::now() - SESSION_TIMEOUT;
  for (auto& [id, session] : sessions_) {
    if (session.poll || session.last_poll > limit) continue;
    for (const auto& [number, each] : session.live) each->cancelled = true;
    session.live.clear();  // so that nothing is told of them any more
    session.news.clear();
  }
}

void Engine::answer_polls(Clock::time_point now) {
  for (auto& [id, session] : sessions_) {
    if (!session.poll || (session.news.empty() && now < session.poll_deadline)) continue;
    session.last_poll = now;
    answers_.push_back({std::move(session.poll), take_news(session)});
  }
}

void Engine::flush(std::unique_lock<std::mutex>& lock) {
  if (to_send_.empty() && answers_.empty()) return;
  lock.unlock();
  for (const auto& each : answers_) send_events(*each.channel, each.events);
  for (const auto& each : to_send_) send_news(*each);
  answers_.clear();
  to_send_.clear();
  lock.lock();
}

std::vector<int32_t> Engine::take_news(Session& session) {
  std::vector<int32_t> events;
  for (const auto& each : session.news) {
    const int32_t count = each->news.size();
    events.insert(events.end(), {each->id, 0, static_cast<int32_t>(each->status), count, 0, 0});
    events.insert(events.end(), each->news.begin(), each->news.end());
    each->news.clear();
    each->is_news = false;
    if (each->status != Status::RUNNING) session.live.erase(each->id);
  }
  session.news.clear();
  return events;
}

void Engine::send_events(Channel& channel, const std::vector<int32_t>& events) {
  const int64_t count = events.size();
  channel.send({{"session_events", TYPE_INT32, {1, count}, events.data(), events.size() * sizeof(int32_t)}}, true);
}

// Only the engine's thread touches the news and the channel of a standard sequence, so this needs no lock.
void Engine::send_news(Sequence& sequence) const {
  const bool final = sequence.status != Status::RUNNING;
  if (!sequence.streaming && !final) return;
  if (sequence.text) return send_text(sequence, final);
  const int32_t count = sequence.news.size();
  sequence.channel->send(
      {{"output_ids", TYPE_INT32, {1, 1, count}, sequence.news.data(), count * sizeof(int32_t)},
       {"sequence_length", TYPE_INT32, {1, 1}, &count, sizeof count}},
      final);
  sequence.news.clear();
}

void Engine::send_text(Sequence& sequence, bool final) const {
  std::string text;
  for (size_t back = sequence.news.size(); back > 0; --back)
    text += settings_.texts[(sequence.place + settings_.texts.size() - back % settings_.texts.size()) %
                            settings_.texts.size()];
  const std::string value = element(text);
  sequence.channel->send({{"text_output", TYPE_BYTES, {1, 1}, value.data(), value.size()}}, final);
  sequence.news.clear();
}

// --- What Triton calls -----------------------------------------------------------------------------------------------

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
  try {
    return TRITONBACKEND_ModelInstanceSetState(instance, new Engine(Settings::of(instance)));
  } catch (const std::exception& error) {
    return TRITONSERVER_ErrorNew(ERROR_INVALID_ARG, (std::string("synthetic engine: ") + error.what()).c_str());
  }
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* instance) {
  void* state = nullptr;
  if (!failed(TRITONBACKEND_ModelInstanceState(instance, &state))) delete static_cast<Engine*>(state);
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(
    TRITONBACKEND_ModelInstance* instance, TRITONBACKEND_Request** requests, const uint32_t count) {
  void* state = nullptr;
  if (TRITONSERVER_Error* error = TRITONBACKEND_ModelInstanceState(instance, &state)) return error;
  for (uint32_t index = 0; index < count; ++index) static_cast<Engine*>(state)->receive(requests[index]);
  return nullptr;
}

}  // extern "C"
