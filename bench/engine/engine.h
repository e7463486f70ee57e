// A synthetic engine with TensorRT-LLM's tensor contract: steps at a pace, no arithmetic.
//
// One thread steps; each step gives every running sequence its next tokens. Standard requests get a response per step,
// sessions (docs/session_contract.md) one response per poll. For front ends that want text there is a text contract as
// well, that of TensorRT-LLM's ensemble: text_input, max_tokens, stream, seed in, text_output out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "settings.h"
#include "wire.h"

using Clock = std::chrono::steady_clock;

enum class Status { RUNNING = 0, LENGTH = 3, CANCELLED = 4 };

struct Session;

struct Sequence {
  std::unique_ptr<Channel> channel;  // of a standard request
  std::string request_id;
  bool streaming = true;
  bool text = false;  // wants text instead of tokens
  Session* session = nullptr;  // of a session's submit
  int32_t id = 0;
  size_t place = 0;  // of its next token among the settings' tokens
  int left = 0;
  bool cancelled = false;
  Status status = Status::RUNNING;
  std::vector<int32_t> news;  // tokens that were not sent yet
  bool is_news = false;       // is among its session's
};

struct Session {
  std::unordered_map<int32_t, std::shared_ptr<Sequence>> live;
  std::vector<std::shared_ptr<Sequence>> news;
  std::unique_ptr<Channel> poll;
  Clock::time_point poll_deadline;
  Clock::time_point last_poll;
};

class Engine {
 public:
  explicit Engine(Settings settings);
  ~Engine();

  // Takes a request over: answers it now or from the engine's thread.
  void receive(TRITONBACKEND_Request* request);

 private:
  struct Sending {  // what is to be sent when the lock is no longer held
    std::unique_ptr<Channel> channel;
    std::vector<int32_t> events;
  };

  void generate(const Inputs& inputs, std::unique_ptr<Channel> channel);
  void stop(const Inputs& inputs, std::unique_ptr<Channel> channel);
  void hello(std::unique_ptr<Channel> channel);
  void submit(const Inputs& inputs, std::unique_ptr<Channel> channel);
  void poll(const Inputs& inputs, std::unique_ptr<Channel> channel);
  void cancel(const Inputs& inputs, std::unique_ptr<Channel> channel);
  std::string refusal(int prompt, int output_len) const;
  std::shared_ptr<Sequence> sequence(const Inputs& inputs, int prompt, int output_len) const;
  void enter(std::shared_ptr<Sequence> sequence);

  void run();
  bool may_step() const;
  Clock::time_point next_wake() const;
  Clock::duration step();
  bool advance(Sequence& sequence);
  void look_for_cancelled();
  void answer_polls(Clock::time_point now);
  void flush(std::unique_lock<std::mutex>& lock);
  static std::vector<int32_t> take_news(Session& session);
  static void send_events(Channel& channel, const std::vector<int32_t>& events);
  void send_news(Sequence& sequence) const;
  void send_text(Sequence& sequence, bool final) const;

  const Settings settings_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closing_ = false;
  bool idle_ = true;  // the thread waits for something to do
  Clock::time_point next_step_;
  Clock::time_point next_look_;
  std::deque<std::shared_ptr<Sequence>> waiting_;
  std::vector<std::shared_ptr<Sequence>> running_;
  std::map<uint64_t, Session> sessions_;
  std::vector<std::shared_ptr<Sequence>> to_send_;  // standard sequences with news
  std::vector<Sending> answers_;
  std::thread thread_;
};
