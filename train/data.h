// train/data.h - text to token shards once, and shards to batches as a pure function of the step.
//
// A data folder holds *train*.bin and *val*.bin (token_file.h), tokenizer.json and data.json.
// Shards of llm.c and modded-nanogpt lie in a folder without the two JSON files: they are GPT-2
// tokens, can be trained on, and have no text form here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"
#include "train/token_file.h"

namespace murmur {

enum class Split { train, val };
constexpr const char* name_of(Split split) { return split == Split::train ? "train" : "val"; }

// What data.json holds, and what `data prepare` and `data info` show.
struct DataSummary {
  struct File {
    std::string name;
    int64_t size = 0;      // of a source in bytes, of a shard in tokens
    std::string checksum;  // CRC-32C of the bytes, of the tokens
  };
  std::string dir;
  std::string tokenizer;
  int64_t vocab_size = 0;
  std::vector<File> sources;  // empty where the shards were not prepared by Murmur
  std::vector<File> train, val;
  std::optional<double> bytes_per_token;  // of the validation part
};
std::string text(const DataSummary& summary);  // a few lines for people

// Joins the files as they are, and cuts the joined text once, at a character boundary: the last
// `val_fraction` of it is validation. The two parts share no byte. The char tokenizer collects its
// symbols over the whole text, validation included, so that validation has no unknown symbol.
// tokenizer.json is written last: a folder without it, but with data.json, is unfinished.
DataSummary prepare_data(const std::vector<std::string>& files, const std::string& tokenizer_name,
                         const std::string& out_dir, double val_fraction = 0.05,
                         int64_t tokens_per_shard = 100'000'000);

// Opens the folder with every check and compares its shards with the checksums in data.json.
DataSummary describe_data(const std::string& dir);

// The image of `position` under a pseudo-random permutation of [0, count) that `key` selects:
// no table, the same on every machine.
int64_t permuted(int64_t position, int64_t count, uint64_t key);

struct Batch {
  Tensor tokens, targets;  // (B, T) int32 each; targets[b, t] follows tokens[b, t] in the text
};

// The shards of one split, joined: a sequence may begin in one and end in the next.
class TokenStream {
 public:
  TokenStream() = default;
  explicit TokenStream(std::vector<TokenFile> shards);

  int64_t size() const { return first_.back(); }
  const std::vector<TokenFile>& shards() const { return shards_; }
  void copy(int64_t begin, int64_t count, int32_t* to) const;

 private:
  std::vector<TokenFile> shards_;
  std::vector<int64_t> first_{0};  // where each shard begins, and the end
};

// A data folder, mapped. Holds no position: every call may come from any thread, in any order.
class Dataset {
 public:
  explicit Dataset(const std::string& dir);

  const std::string& dir() const { return dir_; }
  int64_t vocab_size() const { return vocab_size_; }
  // "" where the folder has no tokenizer.json (GPT-2 shards).
  const std::string& tokenizer_path() const { return tokenizer_path_; }
  const TokenStream& stream(Split split) const { return split == Split::train ? train_ : val_; }
  int64_t tokens(Split split) const { return stream(split).size(); }
  // Over the validation targets; bits per byte = nats per token / ln 2 / bytes_per_token.
  std::optional<double> bytes_per_token() const { return bytes_per_token_; }

  // Sequences first_sequence, first_sequence + 1, ... of the endless order that `seed` selects.
  // Step s of a run reads first_sequence = s * batch_size. Cutting a batch into micro-batches, or
  // over ranks, gives the same sequences.
  //
  //   W windows an epoch; sequence k is place k mod W of epoch e = k div W
  //   window = permuted(k mod W, W, key(seed, e))         phase = hash(seed, e) mod T
  //   tokens = stream[phase + window T, ... + T)          targets = one further
  //
  // In an epoch no token is a target twice, and all but fewer than 2T are targets once.
  Batch batch(Split split, uint64_t seed, int64_t first_sequence, int64_t batch_size,
              int64_t block_size) const;
  int64_t sequences_per_epoch(Split split, int64_t block_size) const;  // W

  // Validation from front to back: each token but the first is a target exactly once. Batches are
  // (B, T), then perhaps one (fewer, T), then perhaps one (1, shorter) with what is left: weigh
  // their mean losses by targets.numel().
  int64_t eval_batches(int64_t batch_size, int64_t block_size) const;
  Batch eval_batch(int64_t index, int64_t batch_size, int64_t block_size) const;

 private:
  std::string dir_;
  std::string tokenizer_path_;
  int64_t vocab_size_ = 0;
  TokenStream train_, val_;
  std::optional<double> bytes_per_token_;
};

}  // namespace murmur
