// train/identity.cpp - the settings that fix the shape and meaning of weights, and two digests.
#include "train/identity.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tensor/check.h"
#include "train/checksum.h"
#include "train/files.h"
#include "train/prepare.h"  // data_digest
#include "train/tokenizer.h"

namespace murmur {

static const std::string kFile = "/identity.json";

std::string tokenizer_digest(const std::string& tokenizer_path) {
  if (tokenizer_path.empty()) return "gpt2";
  const auto tokenizer = load_tokenizer(tokenizer_path);
  const std::string knows = tokenizer->json();
  return fmt::format("{}, crc32c {}", tokenizer->name(),
                     checksum_text(crc32c(knows.data(), knows.size())));
}

Identity model_identity(const GptConfig& model) {
  const Unary f = mlp_activation(model);
  return {
      {"arch", model.arch == Arch::modern ? "modern" : "gpt2"},
      {"activation", f.function->has_constant ? fmt::format("{}:{}", f.function->name, f.constant)
                                              : f.function->name},
      {"n_layer", fmt::format("{}", model.n_layer)},
      {"n_head", fmt::format("{}", model.n_head)},
      {"n_embd", fmt::format("{}", model.n_embd)},
      {"block_size", fmt::format("{}", model.block_size)},
      {"vocab_size", fmt::format("{}", model.vocab_size)},
      {"bias", fmt::format("{}", model.bias)}};
}

Identity identity_of(const GptConfig& model, const Dataset& data) {
  Identity identity = model_identity(model);
  identity["tokenizer"] = tokenizer_digest(data.tokenizer_path());
  identity["data"] = data_digest(data);
  return identity;
}

void save_identity(const std::string& run, const Identity& identity) {
  write_file_durably(run + kFile, nlohmann::json(identity).dump(2) + "\n");
}

Identity load_identity(const std::string& run) {
  const std::string path = run + kFile;
  if (!path_exists(path)) return {};
  const auto json = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  Identity identity;
  bool whole = json.is_object() && !json.empty();
  for (const auto& [name, value] : json.items()) {
    whole = whole && value.is_string();
    if (whole) identity[name] = value;
  }
  if (!whole) throw InputError(path + ": damaged; take it from another copy, or remove it");
  return identity;
}

void require_same(const Identity& saved, const Identity& wanted, const std::string& run,
                  const std::string& advice) {
  auto require = [&](const std::string& name, const std::string& value) {
    auto found = saved.find(name);
    if (found != saved.end() && found->second != value) {
      throw InputError(fmt::format("{}: the run of '{}' began with {}, not {}; {}", name, run,
                                   found->second, value, advice));
    }
  };
  if (auto arch = wanted.find("arch"); arch != wanted.end())  // before what follows from it
    require("arch", arch->second);
  for (const auto& [name, value] : wanted) require(name, value);
}

}  // namespace murmur
