// The parameters of the model's config.pbtxt.
#pragma once

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "triton.h"

struct Settings {
  int64_t step_us;          // between two steps; 0: no pause
  int64_t tokens_per_s;     // of all sequences together, at most; 0: any number
  int tokens_per_step;      // of each sequence
  size_t max_batch_size;    // sequences that run at the same time; others wait
  int max_seq_len;          // prompt and answer
  std::string checkpoint;   // the folder with the tokenizer
  std::vector<int32_t> tokens;  // what sequences write, over and over: one with seed s begins at place s modulo the size
  std::vector<std::string> texts;  // of these tokens

  static Settings of(TRITONBACKEND_ModelInstance* instance);
};

// A parameter from the model's configuration as Triton writes it, as JSON.
inline std::string parameter(const std::string& config, const std::string& key) {
  const std::string head = "\"" + key + "\":{\"string_value\":\"";
  const size_t at = config.find(head);
  if (at == std::string::npos) throw std::runtime_error("the parameter " + key + " is missing");
  const size_t from = at + head.size();
  std::string value = config.substr(from, config.find('"', from) - from);
  for (size_t slash; (slash = value.find("\\/")) != std::string::npos;) value.erase(slash, 1);
  return value;
}

// A line of the file for each token: its id, a space, its text.
inline void read_tokens(const std::string& path, Settings& settings) {
  std::ifstream file(path);
  for (int32_t id; file >> id;) {
    file.ignore(1);
    settings.tokens.push_back(id);
    std::getline(file, settings.texts.emplace_back());
  }
  if (settings.tokens.empty()) throw std::runtime_error("no tokens in " + path);
}

inline std::string config_of(TRITONBACKEND_ModelInstance* instance) {
  TRITONBACKEND_Model* model = nullptr;
  TRITONSERVER_Message* message = nullptr;
  const char* base = nullptr;
  size_t size = 0;
  if (TRITONBACKEND_ModelInstanceModel(instance, &model) != nullptr ||
      TRITONBACKEND_ModelConfig(model, 1, &message) != nullptr ||
      TRITONSERVER_MessageSerializeToJson(message, &base, &size) != nullptr)
    throw std::runtime_error("the model's configuration cannot be read");
  const std::string config(base, size);
  TRITONSERVER_MessageDelete(message);
  return config;
}

inline Settings Settings::of(TRITONBACKEND_ModelInstance* instance) {
  const std::string config = config_of(instance);
  const auto number = [&](const char* key) { return std::stoll(parameter(config, key)); };
  Settings settings{
      number("step_us"),
      number("tokens_per_s"),
      static_cast<int>(number("tokens_per_step")),
      static_cast<size_t>(number("max_batch_size")),
      static_cast<int>(number("max_seq_len")),
      parameter(config, "checkpoint"),
      {},
      {},
  };
  read_tokens(parameter(config, "tokens"), settings);
  return settings;
}
