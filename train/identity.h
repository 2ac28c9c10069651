// train/identity.h - what a run is of: its model, its tokenizer and its data, each by a text that
// is the same exactly where the thing is. Checkpoints remember it, ranks compare it.
#pragma once

#include <map>
#include <string>

#include "nn/gpt.h"
#include "train/data.h"

namespace murmur {

using Identity = std::map<std::string, std::string>;  // "n_head" -> "4", "data" -> see data_digest

Identity identity_of(const GptConfig& model, const Dataset& data);

// "char, crc32c 1a2b3c4d", by what the tokenizer knows and not by the bytes of its file; "gpt2" for
// GPT-2 shards, which come without.
std::string tokenizer_digest(const std::string& tokenizer_path);

// What `saved` says otherwise than `wanted`: "n_head: 4, not 8"; "" where nothing does. Entries
// that one of them lacks are not compared: checkpoints of before they were recorded.
std::string difference(const Identity& saved, const Identity& wanted);

}  // namespace murmur
