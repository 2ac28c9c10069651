// train/identity.h - what a run is of: its model, its tokenizer and its data, each by a text that
// is the same exactly where the thing is. Checkpoints remember it, ranks compare it.
#pragma once

#include <map>
#include <string>

#include "nn/gpt.h"
#include "train/data.h"

namespace murmur {

using Identity = std::map<std::string, std::string>;  // "n_head" -> "4", "data" -> see data_digest

// By the names of the settings that the model is made of.
Identity model_identity(const GptConfig& model);
Identity identity_of(const GptConfig& model, const Dataset& data);  // with tokenizer and data

// "char, crc32c 1a2b3c4d", by what the tokenizer knows and not by the bytes of its file; "gpt2" for
// GPT-2 shards, which come without.
std::string tokenizer_digest(const std::string& tokenizer_path);

// RUN/identity.json. Empty for a run of before there was such a file.
void save_identity(const std::string& run, const Identity& identity);
Identity load_identity(const std::string& run);

// InputError where `saved`, of the run in that folder, says otherwise than `wanted`, of what both
// know.
void require_same(const Identity& saved, const Identity& wanted, const std::string& run,
                  const std::string& advice);

}  // namespace murmur
