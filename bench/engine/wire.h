// What travels between Triton and the engine: input tensors in, responses out.
#pragma once

#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "triton.h"

// Errors of Triton's own API have no one to go to here: the request they belong to ends, or never gets an answer.
inline bool failed(TRITONSERVER_Error* error) {
  if (error != nullptr) TRITONSERVER_ErrorDelete(error);
  return error != nullptr;
}

class Inputs {
 public:
  explicit Inputs(TRITONBACKEND_Request* request) : request_(request) {}

  // Elements of a tensor; empty without it.
  template <typename T>
  std::vector<T> array(const char* name) const {
    std::vector<T> values;
    TRITONBACKEND_Input* input;
    uint32_t buffers = 0;
    if (failed(TRITONBACKEND_RequestInput(request_, name, &input)) ||
        failed(TRITONBACKEND_InputProperties(input, nullptr, nullptr, nullptr, nullptr, nullptr, &buffers)))
      return values;
    for (uint32_t index = 0; index < buffers; ++index) {
      const void* buffer = nullptr;
      uint64_t bytes = 0;
      int memory_type = MEMORY_CPU;
      int64_t memory_id = 0;
      if (failed(TRITONBACKEND_InputBuffer(input, index, &buffer, &bytes, &memory_type, &memory_id))) break;
      const T* first = static_cast<const T*>(buffer);
      values.insert(values.end(), first, first + bytes / sizeof(T));
    }
    return values;
  }

  template <typename T>
  T scalar(const char* name, T otherwise) const {
    std::vector<T> values = array<T>(name);
    return values.empty() ? otherwise : values[0];
  }

  std::string id() const {
    const char* id = "";
    return failed(TRITONBACKEND_RequestId(request_, &id)) ? "" : id;
  }

 private:
  TRITONBACKEND_Request* request_;
};

struct Output {
  const char* name;
  int type;
  std::initializer_list<int64_t> shape;
  const void* data;
  size_t bytes;
};

// The way back to who sent a request. Ends with the last response.
class Channel {
 public:
  explicit Channel(TRITONBACKEND_Request* request) { failed(TRITONBACKEND_ResponseFactoryNew(&factory_, request)); }
  ~Channel() {
    if (factory_ != nullptr) failed(TRITONBACKEND_ResponseFactoryDelete(factory_));
  }
  Channel(const Channel&) = delete;

  void send(std::initializer_list<Output> outputs, bool final) {
    TRITONBACKEND_Response* response;
    if (failed(TRITONBACKEND_ResponseNewFromFactory(&response, factory_))) return;
    for (const Output& each : outputs) {
      TRITONBACKEND_Output* output;
      void* buffer = nullptr;
      int memory_type = MEMORY_CPU;
      int64_t memory_id = 0;
      if (failed(TRITONBACKEND_ResponseOutput(
              response, &output, each.name, each.type, each.shape.begin(), each.shape.size())) ||
          failed(TRITONBACKEND_OutputBuffer(output, &buffer, each.bytes, &memory_type, &memory_id)))
        continue;
      if (each.bytes != 0) std::memcpy(buffer, each.data, each.bytes);
    }
    failed(TRITONBACKEND_ResponseSend(response, final ? RESPONSE_COMPLETE_FINAL : 0, nullptr));
  }

  void fail(const std::string& message) {
    TRITONBACKEND_Response* response;
    if (failed(TRITONBACKEND_ResponseNewFromFactory(&response, factory_))) return;
    TRITONSERVER_Error* error = TRITONSERVER_ErrorNew(ERROR_INTERNAL, message.c_str());
    failed(TRITONBACKEND_ResponseSend(response, RESPONSE_COMPLETE_FINAL, error));
    TRITONSERVER_ErrorDelete(error);
  }

  // The end without a response.
  void end() { failed(TRITONBACKEND_ResponseFactorySendFlags(factory_, RESPONSE_COMPLETE_FINAL)); }

  bool is_cancelled() const {
    bool cancelled = false;
    return !failed(TRITONBACKEND_ResponseFactoryIsCancelled(factory_, &cancelled)) && cancelled;
  }

 private:
  TRITONBACKEND_ResponseFactory* factory_ = nullptr;
};

// A STRING tensor's one element.
inline std::string element(const std::string& text) {
  uint32_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}
