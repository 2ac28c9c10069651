// train/identity.cpp - the settings that fix the shape and meaning of weights, and two digests.
#include "train/identity.h"

#include <fmt/format.h>

#include "train/checksum.h"
#include "train/prepare.h"  // data_digest
#include "train/tokenizer.h"

namespace murmur {

std::string tokenizer_digest(const std::string& tokenizer_path) {
  if (tokenizer_path.empty()) return "gpt2";
  const auto tokenizer = load_tokenizer(tokenizer_path);
  const std::string knows = tokenizer->json();
  return fmt::format("{}, crc32c {}", tokenizer->name(),
                     checksum_text(crc32c(knows.data(), knows.size())));
}

Identity identity_of(const GptConfig& model, const Dataset& data) {
  return {{"arch", model.arch == Arch::modern ? "modern" : "gpt2"},
          {"n_layer", fmt::format("{}", model.n_layer)},
          {"n_head", fmt::format("{}", model.n_head)},
          {"n_embd", fmt::format("{}", model.n_embd)},
          {"block_size", fmt::format("{}", model.block_size)},
          {"vocab_size", fmt::format("{}", model.vocab_size)},
          {"bias", fmt::format("{}", model.bias)},
          {"tokenizer", tokenizer_digest(data.tokenizer_path())},
          {"data", data_digest(data)}};
}

std::string difference(const Identity& saved, const Identity& wanted) {
  for (const auto& [name, value] : wanted) {
    auto found = saved.find(name);
    if (found != saved.end() && found->second != value)
      return fmt::format("{}: {}, not {}", name, found->second, value);
  }
  return "";
}

}  // namespace murmur
