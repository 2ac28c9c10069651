// train/data.cpp - opening a data folder, and the order of its sequences.
#include "train/data.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "tensor/check.h"
#include "train/files.h"  // path_exists
#include "train/tokenizer.h"

namespace murmur {

namespace fs = std::filesystem;

// --- the folder -------------------------------------------------------------------------------

bool is_shard(const std::string& name, Split split) {
  return name.find(name_of(split)) != std::string::npos && name.ends_with(".bin");
}

std::vector<std::string> shard_names(const std::string& dir, Split split) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (is_shard(name, split)) names.push_back(name);
  }
  if (error) {
    throw InputError(
        fmt::format("{}: cannot read the data folder: {}; make one with 'murmur data prepare'", dir,
                    error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

constexpr int64_t kGpt2Vocabulary = 50257;  // of llm.c shards, which come without a tokenizer

TokenStream open_stream(const std::string& dir, Split split, int64_t vocab_size) {
  std::vector<TokenFile> shards;
  for (const std::string& name : shard_names(dir, split)) {
    const Split other = split == Split::train ? Split::val : Split::train;
    if (name.find(name_of(other)) != std::string::npos) {
      throw InputError(fmt::format(
          "{}/{}: the name says both train and val; rename it so that it says one", dir, name));
    }
    shards.emplace_back(dir + "/" + name, vocab_size);
  }
  if (shards.empty()) {
    throw InputError(fmt::format("{}: no *{}*.bin; make shards with 'murmur data prepare'", dir,
                                 name_of(split)));
  }
  TokenStream stream(std::move(shards));
  if (stream.size() < 2) {
    throw InputError(fmt::format("{}: the {} shards hold {} tokens, at least 2 are needed", dir,
                                 name_of(split), stream.size()));
  }
  return stream;
}

// Bytes per token of everything that is a target: all but the first token.
double mean_bytes(const TokenStream& stream, const Tokenizer& tokenizer) {
  std::vector<int64_t> count = stream.counts(tokenizer.vocab_size());
  int32_t first;
  stream.copy(0, 1, &first);
  count[size_t(first)]--;
  int64_t bytes = 0;
  for (size_t id = 0; id < count.size(); id++) {
    if (count[id]) bytes += count[id] * tokenizer.bytes_of(int64_t(id));
  }
  return double(bytes) / double(stream.size() - 1);
}

}  // namespace

// --- order ------------------------------------------------------------------------------------

namespace {

// splitmix64 (Steele, Lea & Flood, 2014): one step of the generator, used as a hash.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t epoch_key(uint64_t seed, int64_t epoch) { return mix(mix(seed) + uint64_t(epoch)); }

// How a stream is cut: `windows` of T targets each, from `phase` in [0, phases).
struct Windows {
  int64_t windows;  // the same for every phase, and so for every epoch
  int64_t phases;   // T, or fewer where the stream is shorter than 2T
};

Windows windows_of(const TokenStream& stream, int64_t block_size) {
  const int64_t n = stream.size();
  check(block_size > 0, "data: block size must be at least 1");
  check(n > block_size, "data: fewer tokens than one sequence needs");
  const int64_t windows = std::max(int64_t(1), n / block_size - 1);
  return {windows, std::min(block_size, n - windows * block_size)};
}

Batch empty_batch(int64_t rows, int64_t block_size) {
  return {Tensor({rows, block_size}, DType::i32), Tensor({rows, block_size}, DType::i32)};
}

// Row `row` of the batch: T tokens from `begin`, and the T that follow them one by one.
void fill_row(Batch& batch, int64_t row, const TokenStream& stream, int64_t begin) {
  const int64_t width = batch.tokens.cols();
  std::vector<int32_t> text(size_t(width) + 1);
  stream.copy(begin, width + 1, text.data());
  std::copy_n(text.begin(), width, batch.tokens.data<int32_t>() + row * width);
  std::copy_n(text.begin() + 1, width, batch.targets.data<int32_t>() + row * width);
}

}  // namespace

// A Feistel network of four rounds on the smallest even number of bits that can hold count - 1:
//   (left, right) <- (right, left xor F(round, right))       invertible whatever F is
// Images outside [0, count) are sent through again; the way ends inside, since the walk is on a
// cycle that contains `position`. The network is at most four times as wide as count, so that a
// few turns do.
int64_t permuted(int64_t position, int64_t count, uint64_t key) {
  check(position >= 0 && position < count, "permuted: position outside [0, count)");
  int half_bits = 1;
  while ((int64_t(1) << (2 * half_bits)) < count) half_bits++;
  const uint64_t mask = (uint64_t(1) << half_bits) - 1;
  uint64_t x = uint64_t(position);
  do {
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < 4; round++) {
      const uint64_t next = left ^ (mix(mix(key + round) + right) & mask);
      left = right;
      right = next;
    }
    x = (left << half_bits) | right;
  } while (x >= uint64_t(count));
  return int64_t(x);
}

int64_t sequences_per_epoch(const TokenStream& stream, int64_t block_size) {
  return windows_of(stream, block_size).windows;
}

Batch shuffled_batch(const TokenStream& stream, uint64_t seed, int64_t first_sequence,
                     int64_t batch_size, int64_t block_size) {
  check(first_sequence >= 0 && batch_size > 0, "data: a batch needs a size and a first sequence");
  const auto [windows, phases] = windows_of(stream, block_size);
  Batch batch = empty_batch(batch_size, block_size);  // (B, T)
  for (int64_t row = 0; row < batch_size; row++) {
    const int64_t sequence = first_sequence + row;
    const uint64_t key = epoch_key(seed, sequence / windows);
    const int64_t window = permuted(sequence % windows, windows, key);
    const int64_t phase = int64_t(mix(~key) % uint64_t(phases));
    fill_row(batch, row, stream, phase + window * block_size);
  }
  return batch;
}

// --- TokenStream ------------------------------------------------------------------------------

TokenStream::TokenStream(std::vector<TokenFile> shards) : shards_(std::move(shards)) {
  for (size_t i = 0; i < shards_.size(); i++) append({i, {0, shards_[i].size()}});
}

void TokenStream::append(const Piece& piece) {
  pieces_.push_back(piece);
  first_.push_back(first_.back() + piece.tokens.size());
}

size_t TokenStream::piece_at(int64_t position) const {
  return size_t(std::upper_bound(first_.begin(), first_.end(), position) - first_.begin()) - 1;
}

TokenStream TokenStream::select(std::span<const TokenRange> ranges) const {
  TokenStream selection;
  selection.shards_ = shards_;
  for (auto [begin, end] : ranges) {
    check(begin >= 0 && begin <= end && end <= size(), "data: range outside the tokens");
    for (size_t i = piece_at(begin); begin < end; i++) {
      const int64_t stop = std::min(end, first_[i + 1]);
      const int64_t shift = pieces_[i].tokens.begin - first_[i];
      selection.append({pieces_[i].shard, {begin + shift, stop + shift}});
      begin = stop;
    }
  }
  return selection;
}

void TokenStream::copy(int64_t begin, int64_t count, int32_t* to) const {
  check(begin >= 0 && count >= 0 && begin + count <= size(), "data: range outside the tokens");
  std::vector<uint16_t> tokens;
  for (size_t i = piece_at(begin); count > 0; i++) {
    const int64_t here = std::min(count, first_[i + 1] - begin);
    tokens.resize(size_t(here));
    shards_[pieces_[i].shard].read(pieces_[i].tokens.begin + begin - first_[i], tokens);
    to = std::copy(tokens.begin(), tokens.end(), to);
    begin += here;
    count -= here;
  }
}

std::vector<int64_t> TokenStream::counts(int64_t vocab_size) const {
  std::vector<int64_t> count(size_t(vocab_size), 0);
  for (const auto& [shard, tokens] : pieces_) {
    shards_[shard].for_each_piece(tokens.begin, tokens.end, [&](auto piece) {
      for (uint16_t id : piece) count[id]++;
    });
  }
  return count;
}

// --- Dataset ----------------------------------------------------------------------------------

Dataset::Dataset(const std::string& dir) : dir_(dir) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (path_exists(tokenizer_file(dir))) {
    tokenizer_path_ = tokenizer_file(dir);
    tokenizer = load_tokenizer(tokenizer_path_);
  } else if (path_exists(data_file(dir))) {
    throw InputError(dir + ": no tokenizer.json: preparing did not finish; prepare the data again");
  }
  vocab_size_ = tokenizer ? tokenizer->vocab_size() : kGpt2Vocabulary;
  train_ = open_stream(dir, Split::train, vocab_size_);
  val_ = open_stream(dir, Split::val, vocab_size_);
  if (tokenizer) bytes_per_token_ = mean_bytes(val_, *tokenizer);
}

const TokenStream& Dataset::at_least_a_sequence(Split split, int64_t block_size) const {
  const int64_t n = tokens(split);
  if (n <= block_size) {
    throw InputError(fmt::format(
        "{}: {} has {} tokens, block size {} needs {}; use a block size of at most {} or more text",
        dir_, name_of(split), n, block_size, block_size + 1, n - 1));
  }
  return stream(split);
}

int64_t Dataset::sequences_per_epoch(Split split, int64_t block_size) const {
  return murmur::sequences_per_epoch(at_least_a_sequence(split, block_size), block_size);
}

Batch Dataset::batch(Split split, uint64_t seed, int64_t first_sequence, int64_t batch_size,
                     int64_t block_size) const {
  return shuffled_batch(at_least_a_sequence(split, block_size), seed, first_sequence, batch_size,
                        block_size);
}

int64_t Dataset::eval_batches(int64_t batch_size, int64_t block_size) const {
  check(batch_size > 0 && block_size > 0, "data: batch and block size must be at least 1");
  const int64_t targets = tokens(Split::val) - 1;
  const int64_t rows = targets / block_size;
  return (rows + batch_size - 1) / batch_size + (targets % block_size > 0);
}

Batch Dataset::eval_batch(int64_t index, int64_t batch_size, int64_t block_size) const {
  check(index >= 0 && index < eval_batches(batch_size, block_size), "data: no such eval batch");
  const int64_t targets = tokens(Split::val) - 1;
  const int64_t all_rows = targets / block_size;
  const int64_t first = index * batch_size;
  const bool is_rest = first >= all_rows;
  const int64_t rows = is_rest ? 1 : std::min(batch_size, all_rows - first);
  const int64_t begin = is_rest ? all_rows * block_size : first * block_size;
  Batch batch = empty_batch(rows, is_rest ? targets % block_size : block_size);
  for (int64_t row = 0; row < rows; row++) {
    fill_row(batch, row, val_, begin + row * block_size);
  }
  return batch;
}

}  // namespace murmur
