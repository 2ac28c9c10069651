// train/data.cpp - preparing a data folder, opening it, and the order of its sequences.
#include "train/data.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "train/checksum.h"  // crc32c
#include "train/files.h"     // read_file, write_file_durably
#include "train/tokenizer.h"

namespace murmur {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using File = DataSummary::File;

constexpr int64_t kGpt2Vocabulary = 50257;  // of llm.c shards, which come without a tokenizer

std::string tokenizer_file(const std::string& dir) { return dir + "/tokenizer.json"; }
std::string data_file(const std::string& dir) { return dir + "/data.json"; }

File file_of(std::string name, const std::string& bytes) {
  return {std::move(name), int64_t(bytes.size()),
          checksum_text(crc32c(bytes.data(), bytes.size()))};
}
File file_of(std::string name, std::span<const uint16_t> tokens) {
  return {std::move(name), int64_t(tokens.size()),
          checksum_text(crc32c(tokens.data(), tokens.size_bytes()))};
}

// --- data.json --------------------------------------------------------------------------------

Json json_of(const std::vector<File>& files, const char* unit) {
  Json rows = Json::array();
  for (const File& f : files)
    rows.push_back({{"file", f.name}, {unit, f.size}, {"crc32c", f.checksum}});
  return rows;
}

std::vector<File> files_of(const Json& rows, const char* unit) {
  std::vector<File> files;
  for (const Json& row : rows) files.push_back({row.at("file"), row.at(unit), row.at("crc32c")});
  return files;
}

void save_summary(const DataSummary& summary) {
  const Json json = {{"tokenizer", summary.tokenizer},
                     {"vocab_size", summary.vocab_size},
                     {"sources", json_of(summary.sources, "bytes")},
                     {"train", json_of(summary.train, "tokens")},
                     {"val", json_of(summary.val, "tokens")}};
  // A file name may hold bytes that are not UTF-8: they are replaced.
  write_file_durably(data_file(summary.dir),
                     json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::optional<DataSummary> load_summary(const std::string& dir) {
  if (!fs::exists(data_file(dir))) return std::nullopt;
  try {
    const Json json = Json::parse(read_file(data_file(dir)));
    DataSummary summary;
    summary.dir = dir;
    summary.tokenizer = json.at("tokenizer");
    summary.vocab_size = json.at("vocab_size");
    summary.sources = files_of(json.at("sources"), "bytes");
    summary.train = files_of(json.at("train"), "tokens");
    summary.val = files_of(json.at("val"), "tokens");
    return summary;
  } catch (const nlohmann::json::exception&) {
    throw InputError(data_file(dir) + ": damaged; remove the folder and prepare the data again");
  }
}

// --- the folder -------------------------------------------------------------------------------

// The names in `dir` that fit *SPLIT*.bin, sorted.
std::vector<std::string> shard_names(const std::string& dir, Split split) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    const bool fits = name.find(name_of(split)) != std::string::npos && name.ends_with(".bin");
    if (fits) names.push_back(name);
  }
  if (error) {
    throw InputError(
        fmt::format("{}: cannot read the data folder: {}; make one with 'murmur data prepare'", dir,
                    error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

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
  std::vector<int64_t> count(size_t(tokenizer.vocab_size()));
  for (const TokenFile& shard : stream.shards()) {
    for (uint16_t id : shard.tokens()) count[id]++;
  }
  int32_t first;
  stream.copy(0, 1, &first);
  count[size_t(first)]--;
  int64_t bytes = 0;
  for (size_t id = 0; id < count.size(); id++) {
    if (count[id]) bytes += count[id] * tokenizer.bytes_of(int64_t(id));
  }
  return double(bytes) / double(stream.size() - 1);
}

// --- preparing --------------------------------------------------------------------------------

// The byte at which validation begins: never inside a UTF-8 character.
size_t split_point(std::string_view text, double val_fraction) {
  size_t at = size_t(double(text.size()) * (1 - val_fraction));
  auto inside = [&](size_t i) { return i < text.size() && (uint8_t(text[i]) & 0xC0) == 0x80; };
  while (at > 0 && inside(at)) at--;
  return at;
}

struct Shard {
  std::string name;
  std::span<const uint16_t> tokens;
};

// Pieces of at most `tokens_per_shard`, named train_000000.bin, train_000001.bin, ...
std::vector<Shard> shards_of(Split split, std::span<const uint16_t> tokens,
                             size_t tokens_per_shard) {
  std::vector<Shard> shards;
  for (size_t begin = 0; begin < tokens.size(); begin += tokens_per_shard) {
    const size_t count = std::min(tokens_per_shard, tokens.size() - begin);
    shards.push_back({fmt::format("{}_{:06d}.bin", name_of(split), shards.size()),
                      tokens.subspan(begin, count)});
  }
  return shards;
}

// Reads the files one after another into one text, and notes what they were.
std::string join(const std::vector<std::string>& files, bool must_be_utf8,
                 std::vector<File>& sources) {
  std::string all;
  for (const std::string& file : files) {
    const std::string bytes = read_file(file);
    if (must_be_utf8) check_utf8(bytes, file);
    sources.push_back(file_of(fs::path(file).filename().string(), bytes));
    all += bytes;
  }
  if (all.empty()) throw InputError("data prepare: the text is empty; name at least one with text");
  return all;
}

// Makes `dir` ready for new shards. Only what data.json lists is removed; other shards would be
// read together with the new ones, and are refused. data.json stays until it is replaced: with it
// and without tokenizer.json the folder counts as unfinished.
void clear_for_shards(const std::string& dir) {
  make_directories(dir);
  std::vector<std::string> own;
  if (const auto old = load_summary(dir)) {
    for (const auto* files : {&old->train, &old->val}) {
      for (const File& file : *files) own.push_back(file.name);
    }
  }
  std::vector<std::string> found = shard_names(dir, Split::train);
  for (const std::string& name : shard_names(dir, Split::val)) found.push_back(name);
  for (const std::string& name : found) {
    if (std::find(own.begin(), own.end(), name) == own.end()) {
      throw InputError(fmt::format(
          "{}/{}: another shard, which would be read together with the new ones; choose an empty "
          "folder",
          dir, name));
    }
  }
  remove_tree(tokenizer_file(dir));
  sync_directory(dir);
  for (const std::string& name : found) remove_tree(dir + "/" + name);
}

}  // namespace

DataSummary prepare_data(const std::vector<std::string>& files, const std::string& tokenizer_name,
                         const std::string& out_dir, double val_fraction,
                         int64_t tokens_per_shard) {
  const TokenizerInfo& info = tokenizer_info(tokenizer_name);
  if (!(val_fraction > 0 && val_fraction < 1)) {
    throw InputError(
        fmt::format("data prepare: validation fraction {} is not between 0 and 1; 0.05 is usual",
                    val_fraction));
  }
  check(tokens_per_shard > 0, "data prepare: a shard needs at least one token");

  DataSummary summary;
  summary.dir = out_dir;
  summary.tokenizer = tokenizer_name;
  const std::string all = join(files, info.needs_utf8, summary.sources);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(tokenizer_name, all);
  summary.vocab_size = tokenizer->vocab_size();
  const std::string_view joined = all;
  const size_t cut = split_point(joined, val_fraction);
  const std::vector<uint16_t> train = tokenizer->encode(joined.substr(0, cut));
  const std::vector<uint16_t> val = tokenizer->encode(joined.substr(cut));
  if (train.size() < 2 || val.size() < 2) {
    throw InputError(fmt::format(
        "data prepare: the text is too short: {} tokens to train on and {} to validate with, each "
        "needs 2; give it more text or another validation fraction",
        train.size(), val.size()));
  }

  const auto train_shards = shards_of(Split::train, train, size_t(tokens_per_shard));
  const auto val_shards = shards_of(Split::val, val, size_t(tokens_per_shard));
  for (const Shard& s : train_shards) summary.train.push_back(file_of(s.name, s.tokens));
  for (const Shard& s : val_shards) summary.val.push_back(file_of(s.name, s.tokens));

  clear_for_shards(out_dir);
  save_summary(summary);
  for (const auto* shards : {&train_shards, &val_shards}) {
    for (const Shard& s : *shards) write_token_file(out_dir + "/" + s.name, s.tokens);
  }
  save_tokenizer(*tokenizer, tokenizer_file(out_dir));
  summary.bytes_per_token = Dataset(out_dir).bytes_per_token();
  return summary;
}

DataSummary describe_data(const std::string& dir) {
  const Dataset data(dir);
  DataSummary summary;
  summary.dir = dir;
  summary.tokenizer =
      data.tokenizer_path().empty() ? "" : load_tokenizer(data.tokenizer_path())->name();
  summary.vocab_size = data.vocab_size();
  summary.bytes_per_token = data.bytes_per_token();
  for (Split split : {Split::train, Split::val}) {
    std::vector<File>& files = split == Split::train ? summary.train : summary.val;
    for (const TokenFile& shard : data.stream(split).shards()) {
      files.push_back(file_of(fs::path(shard.path()).filename().string(), shard.tokens()));
    }
  }
  const auto listed = load_summary(dir);
  if (!listed) return summary;
  summary.sources = listed->sources;
  auto compare = [&](const std::vector<File>& expected, const std::vector<File>& found) {
    for (const File& file : expected) {
      const auto at = std::find_if(found.begin(), found.end(),
                                   [&](const File& f) { return f.name == file.name; });
      if (at != found.end() && at->checksum == file.checksum) continue;
      throw InputError(fmt::format("{}/{}: {}; prepare the data again", dir, file.name,
                                   at == found.end() ? "listed in data.json but missing"
                                                     : "its tokens are not those data.json lists"));
    }
  };
  compare(listed->train, summary.train);
  compare(listed->val, summary.val);
  return summary;
}

std::string text(const DataSummary& summary) {
  constexpr size_t kShownSources = 8;
  std::string lines = fmt::format(
      "{}: {} tokenizer, {} ids\n", summary.dir,
      summary.tokenizer.empty() ? "GPT-2 shards without" : summary.tokenizer, summary.vocab_size);
  auto part = [&](const char* name, const std::vector<File>& files) {
    int64_t tokens = 0;
    for (const File& file : files) tokens += file.size;
    lines += fmt::format("  {:<6} {} tokens in {} shard{}", name, tokens, files.size(),
                         files.size() == 1 ? "" : "s");
  };
  part("train", summary.train);
  lines += "\n";
  part("val", summary.val);
  if (summary.bytes_per_token)
    lines += fmt::format(", {:.3f} bytes per token", *summary.bytes_per_token);
  lines += "\n";
  for (size_t i = 0; i < std::min(kShownSources, summary.sources.size()); i++) {
    const File& source = summary.sources[i];
    lines += fmt::format("  {:<6} {}, {} bytes, crc32c {}\n", i == 0 ? "from" : "", source.name,
                         source.size, source.checksum);
  }
  if (summary.sources.size() > kShownSources) {
    lines += fmt::format("         and {} more\n", summary.sources.size() - kShownSources);
  }
  return lines;
}

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

Windows windows_of(const Dataset& data, Split split, int64_t block_size) {
  const int64_t n = data.tokens(split);
  check(block_size > 0, "data: block size must be at least 1");
  if (n <= block_size) {
    throw InputError(fmt::format(
        "{}: {} has {} tokens, block size {} needs {}; use a block size of at most {} or more text",
        data.dir(), name_of(split), n, block_size, block_size + 1, n - 1));
  }
  const int64_t windows = std::max(int64_t(1), n / block_size - 1);
  return {windows, std::min(block_size, n - windows * block_size)};
}

Batch empty_batch(int64_t rows, int64_t block_size) {
  return {Tensor({rows, block_size}, DType::i32), Tensor({rows, block_size}, DType::i32)};
}

// Row `row` of the batch: T tokens from `begin`, and the T that follow them one by one.
void fill_row(Batch& batch, int64_t row, const TokenStream& stream, int64_t begin) {
  const int64_t width = batch.tokens.cols();
  stream.copy(begin, width, batch.tokens.data<int32_t>() + row * width);
  stream.copy(begin + 1, width, batch.targets.data<int32_t>() + row * width);
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

// --- Dataset ----------------------------------------------------------------------------------

TokenStream::TokenStream(std::vector<TokenFile> shards) : shards_(std::move(shards)) {
  for (const TokenFile& shard : shards_) {
    first_.push_back(first_.back() + int64_t(shard.tokens().size()));
  }
}

void TokenStream::copy(int64_t begin, int64_t count, int32_t* to) const {
  check(begin >= 0 && count >= 0 && begin + count <= size(), "data: range outside the tokens");
  size_t shard = size_t(std::upper_bound(first_.begin(), first_.end(), begin) - first_.begin()) - 1;
  for (; count > 0; shard++) {
    const auto tokens = shards_[shard].tokens().subspan(size_t(begin - first_[shard]));
    const int64_t here = std::min(count, int64_t(tokens.size()));
    to = std::copy_n(tokens.begin(), here, to);
    begin += here;
    count -= here;
  }
}

Dataset::Dataset(const std::string& dir) : dir_(dir) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (fs::exists(tokenizer_file(dir))) {
    tokenizer_path_ = tokenizer_file(dir);
    tokenizer = load_tokenizer(tokenizer_path_);
  } else if (fs::exists(data_file(dir))) {
    throw InputError(dir + ": no tokenizer.json: preparing did not finish; prepare the data again");
  }
  vocab_size_ = tokenizer ? tokenizer->vocab_size() : kGpt2Vocabulary;
  train_ = open_stream(dir, Split::train, vocab_size_);
  val_ = open_stream(dir, Split::val, vocab_size_);
  if (tokenizer) bytes_per_token_ = mean_bytes(val_, *tokenizer);
}

int64_t Dataset::sequences_per_epoch(Split split, int64_t block_size) const {
  return windows_of(*this, split, block_size).windows;
}

Batch Dataset::batch(Split split, uint64_t seed, int64_t first_sequence, int64_t batch_size,
                     int64_t block_size) const {
  check(first_sequence >= 0 && batch_size > 0, "data: a batch needs a size and a first sequence");
  const auto [windows, phases] = windows_of(*this, split, block_size);
  Batch batch = empty_batch(batch_size, block_size);  // (B, T)
  for (int64_t row = 0; row < batch_size; row++) {
    const int64_t sequence = first_sequence + row;
    const uint64_t key = epoch_key(seed, sequence / windows);
    const int64_t window = permuted(sequence % windows, windows, key);
    const int64_t phase = int64_t(mix(~key) % uint64_t(phases));
    fill_row(batch, row, stream(split), phase + window * block_size);
  }
  return batch;
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
