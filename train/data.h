// train/data.h - a data folder opened, and its shards to batches as a pure function of what was read before.
//
// A data folder holds *train*.bin and *val*.bin (token_file.h), tokenizer.json and data.json
// (prepare.h). Shards of llm.c and modded-nanogpt lie in a folder without the two JSON files: they
// are GPT-2 tokens, can be trained on, and have no text form here.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"
#include "train/token_file.h"

namespace murmur {

enum class Split { train, val };
constexpr const char* name_of(Split split) { return split == Split::train ? "train" : "val"; }

bool is_shard(const std::string& name, Split split);  // *SPLIT*.bin
// The names of a split's shards in `dir`, sorted.
std::vector<std::string> shard_names(const std::string& dir, Split split);
inline std::string tokenizer_file(const std::string& dir) { return dir + "/tokenizer.json"; }
inline std::string data_file(const std::string& dir) { return dir + "/data.json"; }

struct TokenRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

// Tokens that lie in several pieces, joined: a sequence may begin in one and end in the next. The
// pieces of a split are its shards; those of a selection are ranges of another stream.
class TokenStream {
 public:
  TokenStream() = default;
  explicit TokenStream(std::vector<TokenFile> shards);
  TokenStream select(std::span<const TokenRange> ranges) const;  // one after another

  int64_t size() const { return first_.back(); }
  const std::vector<TokenFile>& shards() const { return shards_; }  // also of a selection: all
  void copy(int64_t begin, int64_t count, int32_t* to) const;
  std::vector<int64_t> counts(int64_t vocab_size) const;  // how often each token id comes

 private:
  struct Piece {
    size_t shard;
    TokenRange tokens;  // of the shard
  };
  void append(const Piece& piece);
  size_t piece_at(int64_t position) const;

  std::vector<TokenFile> shards_;
  std::vector<Piece> pieces_;
  std::vector<int64_t> first_{0};  // where each piece begins, and the end
};

// The image of `position` under a pseudo-random permutation of [0, count) that `key` selects:
// no table, the same on every machine.
int64_t permuted(int64_t position, int64_t count, uint64_t key);

struct Batch {
  Tensor tokens, targets;  // (B, T) int32 each; targets[b, t] follows tokens[b, t] in the text
};

// Sequences first_sequence, first_sequence + 1, ... of the endless order of a stream that `seed`
// selects. Step s of a run reads first_sequence = s * batch_size. Cutting a batch into
// micro-batches, or over ranks, gives the same sequences.
//
//   W windows an epoch; sequence k is place k mod W of epoch e = k div W
//   window = permuted(k mod W, W, key(seed, e))         phase = hash(seed, e) mod T
//   tokens = stream[phase + window T, ... + T)          targets = one further
//
// In an epoch no token is a target twice, and all but fewer than 2T targets are once.
Batch shuffled_batch(const TokenStream& stream, uint64_t seed, int64_t first_sequence,
                     int64_t batch_size, int64_t block_size);
int64_t sequences_per_epoch(const TokenStream& stream, int64_t block_size);  // W

// A data folder, its shards open. Holds no position: every call may come from any thread, in any
// order.
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

  // shuffled_batch() and sequences_per_epoch() of a split; a split that is shorter than a sequence
  // is an InputError.
  Batch batch(Split split, uint64_t seed, int64_t first_sequence, int64_t batch_size,
              int64_t block_size) const;
  int64_t sequences_per_epoch(Split split, int64_t block_size) const;

  // Validation from front to back: each token but the first is a target exactly once. Batches are
  // (B, T), then perhaps one (fewer, T), then perhaps one (1, shorter) with what is left: weigh
  // their mean losses by targets.numel().
  int64_t eval_batches(int64_t batch_size, int64_t block_size) const;
  Batch eval_batch(int64_t index, int64_t batch_size, int64_t block_size) const;

 private:
  const TokenStream& at_least_a_sequence(Split split, int64_t block_size) const;

  std::string dir_;
  std::string tokenizer_path_;
  int64_t vocab_size_ = 0;
  TokenStream train_, val_;
  std::optional<double> bytes_per_token_;
};

}  // namespace murmur
