// tests/train/data_test.cpp - text becomes shards without a leak, and shards become batches in an
// order that depends on (seed, step) alone and never changes silently.
//
// Most folders here hold token i at position i: a batch then says where it was read.
#include "train/data.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "tests/train/temporary_folder.h"
#include "train/files.h"  // read_file
#include "train/identity.h"
#include "train/prepare.h"
#include "train/tokenizer.h"

using namespace murmur;

namespace {

// Tokens 0, 1, 2, ... cut into shards of the given sizes, as llm.c would lay them down.
void put_shards(const TemporaryFolder& folder, const std::string& split,
                const std::vector<int64_t>& sizes) {
  int64_t next = 0;
  for (size_t i = 0; i < sizes.size(); i++) {
    std::vector<uint16_t> tokens(size_t(sizes[i]), 0);
    for (uint16_t& token : tokens) token = uint16_t(next++);
    write_token_file(folder / ("fineweb_" + split + "_00000" + std::to_string(i) + ".bin"), tokens);
  }
}

struct Counting {
  TemporaryFolder folder;
  Counting(const std::vector<int64_t>& train, const std::vector<int64_t>& val) {
    put_shards(folder, "train", train);
    put_shards(folder, "val", val);
  }
  Dataset open() const { return Dataset(folder.path()); }
};

std::vector<int64_t> values(const Tensor& x) {
  REQUIRE(x.dtype() == DType::i32);
  return {x.data<int32_t>(), x.data<int32_t>() + x.numel()};
}

// Where each row begins: in these folders its first token.
std::vector<int64_t> begins(const Batch& batch) {
  std::vector<int64_t> first;
  for (int64_t row = 0; row < batch.tokens.rows(); row++) {
    first.push_back(batch.tokens.data<int32_t>()[row * batch.tokens.cols()]);
  }
  return first;
}

std::vector<int64_t> epoch_begins(const Dataset& data, uint64_t seed, int64_t epoch,
                                  int64_t block) {
  const int64_t windows = data.sequences_per_epoch(Split::train, block);
  return begins(data.batch(Split::train, seed, epoch * windows, windows, block));
}

std::vector<int64_t> all_tokens(const TokenStream& stream) {
  std::vector<int32_t> tokens(size_t(stream.size()), 0);
  stream.copy(0, stream.size(), tokens.data());
  return {tokens.begin(), tokens.end()};
}

std::string decoded(const Dataset& data, Split split) {
  const std::vector<int64_t> tokens = all_tokens(data.stream(split));
  return load_tokenizer(data.tokenizer_path())
      ->decode(std::vector<int32_t>(tokens.begin(), tokens.end()));
}

std::string written(const TemporaryFolder& folder, const std::string& name,
                    const std::string& text) {
  put_bytes(folder / name, text);
  return folder / name;
}

std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

// --- order ------------------------------------------------------------------------------------

TEST_CASE("permuted is a bijection for every size") {
  for (int64_t count = 1; count <= 2000; count++) {
    std::set<int64_t> images;
    for (int64_t i = 0; i < count; i++) images.insert(permuted(i, count, uint64_t(count) * 77));
    CAPTURE(count);
    CHECK(int64_t(images.size()) == count);
    CHECK(*images.begin() == 0);
    CHECK(*images.rbegin() == count - 1);
  }
}

TEST_CASE("permuted sends a position everywhere about equally often as the key changes") {
  constexpr int64_t kCount = 13, kKeys = 13000;  // 1000 expected, standard deviation 30
  for (int64_t position : {0, 1, 12}) {
    std::vector<int64_t> hits(kCount, 0);
    for (uint64_t key = 0; key < kKeys; key++) hits[size_t(permuted(position, kCount, key))]++;
    for (int64_t image = 0; image < kCount; image++) {
      CAPTURE(position);
      CAPTURE(image);
      CHECK(std::abs(hits[size_t(image)] - 1000) < 150);
    }
  }
}

TEST_CASE("permuted works for counts near 2^40, and refuses a position outside") {
  constexpr int64_t kCount = (int64_t(1) << 40) + 3;
  std::set<int64_t> images;
  for (int64_t i = 0; i < 1000; i++) images.insert(permuted(kCount - 1 - i, kCount, 5));
  CHECK(images.size() == 1000);
  CHECK(*images.begin() >= 0);
  CHECK(*images.rbegin() < kCount);
  CHECK_THROWS_AS(permuted(10, 10, 1), Error);
  CHECK_THROWS_AS(permuted(-1, 10, 1), Error);
}

TEST_CASE("golden: the order never changes silently") {
  // From a Python version of the formulas in train/data.h and train/data.cpp.
  std::vector<int64_t> images;
  for (int64_t i = 0; i < 10; i++) images.push_back(permuted(i, 10, 42));
  CHECK(images == std::vector<int64_t>{0, 8, 5, 2, 7, 3, 4, 9, 1, 6});

  const Dataset data = Counting({10000}, {10}).open();
  const int64_t B = 8, T = 60;
  REQUIRE(data.sequences_per_epoch(Split::train, T) == 165);
  CHECK(begins(data.batch(Split::train, 1337, 3 * B, B, T)) ==
        std::vector<int64_t>{4063, 8383, 5383, 2203, 2983, 3223, 7243, 9163});
  CHECK(begins(data.batch(Split::train, 1337, 20 * B, B, T)) ==  // into the second epoch
        std::vector<int64_t>{8743, 7603, 883, 1543, 5023, 24, 6504, 984});
  const Dataset shorter = Counting({100}, {10}).open();  // fewer than 2T tokens: one window
  CHECK(begins(shorter.batch(Split::train, 7, 0, 3, T)) == std::vector<int64_t>{6, 30, 29});
}

TEST_CASE("every epoch: windows do not overlap, no target twice, all but fewer than 2T once") {
  for (int64_t n : {65, 127, 128, 129, 1000, 4096}) {
    const Dataset data = Counting({n}, {10}).open();
    for (int64_t T : {1, 2, 7, 64}) {
      for (int64_t epoch = 0; epoch < 4; epoch++) {
        CAPTURE(n);
        CAPTURE(T);
        CAPTURE(epoch);
        const int64_t windows = data.sequences_per_epoch(Split::train, T);
        std::vector<int> times(size_t(n), 0);
        const Batch batch = data.batch(Split::train, 3, epoch * windows, windows, T);
        for (int64_t target : values(batch.targets)) times[size_t(target)]++;
        CHECK(*std::max_element(times.begin(), times.end()) == 1);
        CHECK(std::count(times.begin(), times.end(), 0) < 2 * T);
        CHECK(times[0] == 0);  // nothing precedes the first token

        std::vector<int64_t> sorted = begins(batch);
        std::sort(sorted.begin(), sorted.end());
        for (int64_t i = 0; i < windows; i++) CHECK(sorted[size_t(i)] == sorted[0] + i * T);
      }
    }
  }
}

TEST_CASE("epochs differ in order and in phase, seeds differ in both") {
  const Dataset data = Counting({5000}, {10}).open();
  const int64_t T = 16;
  std::set<std::vector<int64_t>> orders;
  std::set<int64_t> phases;
  for (uint64_t seed : {0, 1, 2}) {
    for (int64_t epoch = 0; epoch < 20; epoch++) {
      const std::vector<int64_t> order = epoch_begins(data, seed, epoch, T);
      orders.insert(order);
      phases.insert(order[0] % T);
    }
  }
  CHECK(orders.size() == 60);
  CHECK(phases.size() > 12);  // of 16; 60 draws leave 0.3 out on average
}

TEST_CASE("targets are the tokens one further, across shards too") {
  const Dataset data = Counting({3, 50, 1, 0, 200}, {10}).open();
  CHECK(data.tokens(Split::train) == 254);
  for (int64_t T : {1, 5, 100}) {
    const int64_t windows = data.sequences_per_epoch(Split::train, T);
    const Batch batch = data.batch(Split::train, 9, 0, windows, T);
    CHECK(batch.tokens.shape() == Shape{windows, T});
    CHECK(batch.targets.shape() == Shape{windows, T});
    const std::vector<int64_t> tokens = values(batch.tokens), targets = values(batch.targets);
    for (size_t i = 0; i < tokens.size(); i++) {
      REQUIRE(targets[i] == tokens[i] + 1);
      if (int64_t(i) % T != 0) REQUIRE(tokens[i] == tokens[i - 1] + 1);
    }
  }
}

TEST_CASE("a selection is its ranges, joined, across shards too") {
  const Dataset data = Counting({3, 50, 1, 0, 200}, {10}).open();
  const TokenStream& all = data.stream(Split::train);
  const std::vector<TokenRange> ranges = {{250, 254}, {2, 2}, {1, 3}, {40, 60}, {0, 1}};
  const TokenStream selection = all.select(ranges);
  std::vector<int64_t> expected;
  for (const TokenRange& range : ranges) {
    for (int64_t i = range.begin; i < range.end; i++) expected.push_back(i);
  }
  CHECK(all_tokens(selection) == expected);
  CHECK(all_tokens(selection.select(std::vector<TokenRange>{{3, 8}})) ==
        std::vector<int64_t>(expected.begin() + 3, expected.begin() + 8));
  CHECK(all.select(std::vector<TokenRange>{}).size() == 0);
  CHECK_THROWS_AS(all.select(std::vector<TokenRange>{{0, 255}}), Error);
  CHECK_THROWS_AS(all.select(std::vector<TokenRange>{{5, 4}}), Error);
}

TEST_CASE("where shards end does not matter") {
  const Dataset one = Counting({1000}, {10}).open();
  const Dataset many = Counting({10, 300, 0, 690}, {10}).open();
  CHECK(all_tokens(many.stream(Split::train)) == all_tokens(one.stream(Split::train)));
  CHECK(values(one.batch(Split::train, 1, 5, 40, 12).tokens) ==
        values(many.batch(Split::train, 1, 5, 40, 12).tokens));
}

TEST_CASE("a batch depends on (seed, step) alone, not on what was asked before") {
  const Counting folder({3000}, {100});
  const int64_t B = 4, T = 10, steps = 100;  // beyond the first epoch
  std::vector<std::vector<int64_t>> forward;
  const Dataset first = folder.open();
  for (int64_t s = 0; s < steps; s++) {
    forward.push_back(values(first.batch(Split::train, 5, s * B, B, T).targets));
  }
  const Dataset second = folder.open();
  for (int64_t s = steps - 1; s >= 0; s--) {
    second.batch(Split::val, 5, s, 1, T);
    second.batch(Split::train, 6, s, B + 1, T + 1);
    CHECK(values(second.batch(Split::train, 5, s * B, B, T).targets) == forward[size_t(s)]);
  }
}

TEST_CASE("micro-batches and ranks read the sequences of the whole batch") {
  const Dataset data = Counting({3000}, {10}).open();
  const int64_t B = 12, T = 9, first = 27 * B;  // crosses the end of an epoch
  REQUIRE(first / data.sequences_per_epoch(Split::train, T) <
          (first + B - 1) / data.sequences_per_epoch(Split::train, T));
  const std::vector<int64_t> whole = values(data.batch(Split::train, 8, first, B, T).tokens);
  for (int64_t micro : {1, 2, 3, 4, 6, 12}) {
    std::vector<int64_t> joined;
    for (int64_t begin = 0; begin < B; begin += micro) {
      const auto part = values(data.batch(Split::train, 8, first + begin, micro, T).tokens);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    CHECK(joined == whole);
  }
}

TEST_CASE("a block size that the data cannot fill is refused with the largest that fits") {
  const Dataset data = Counting({50}, {10}).open();
  CHECK(says(input_error_of([&] { data.batch(Split::train, 1, 0, 1, 50); }), data.dir(),
             "at most 49"));
  CHECK(says(input_error_of([&] { data.sequences_per_epoch(Split::val, 64); }), data.dir(),
             "at most 9"));
  const Batch largest = data.batch(Split::train, 1, 0, 2, 49);
  CHECK(begins(largest) == std::vector<int64_t>{0, 0});
  CHECK_THROWS_AS(data.batch(Split::train, 1, -1, 1, 10), Error);
  CHECK_THROWS_AS(data.batch(Split::train, 1, 0, 0, 10), Error);
  CHECK_THROWS_AS(data.batch(Split::train, 1, 0, 1, 0), Error);
}

// --- evaluation -------------------------------------------------------------------------------

TEST_CASE("evaluation meets every validation target once, in order") {
  for (int64_t n : {2, 9, 10, 11, 100, 101, 108}) {
    const Dataset data = Counting({100}, {n}).open();
    for (int64_t B : {1, 3, 4}) {
      for (int64_t T : {1, 9, 10, 200}) {
        CAPTURE(n);
        CAPTURE(B);
        CAPTURE(T);
        std::vector<int64_t> targets, expected(size_t(n - 1), 0);
        std::iota(expected.begin(), expected.end(), 1);
        const int64_t batches = data.eval_batches(B, T);
        for (int64_t i = 0; i < batches; i++) {
          const Batch batch = data.eval_batch(i, B, T);
          const std::vector<int64_t> x = values(batch.tokens), y = values(batch.targets);
          for (size_t j = 0; j < x.size(); j++) REQUIRE(y[j] == x[j] + 1);
          targets.insert(targets.end(), y.begin(), y.end());
          CHECK(batch.tokens.rows() <= B);
          CHECK(batch.tokens.cols() <= T);
          if (i + 2 < batches) CHECK(batch.tokens.shape() == Shape{B, T});
        }
        CHECK(targets == expected);
      }
    }
  }
}

TEST_CASE("evaluation: full batches, then fewer rows, then what is left") {
  const Dataset data = Counting({100}, {1 + 5 * 10 + 3}).open();
  REQUIRE(data.eval_batches(2, 10) == 4);
  CHECK(data.eval_batch(0, 2, 10).tokens.shape() == Shape{2, 10});
  CHECK(data.eval_batch(2, 2, 10).tokens.shape() == Shape{1, 10});
  CHECK(data.eval_batch(3, 2, 10).tokens.shape() == Shape{1, 3});
  CHECK_THROWS_AS(data.eval_batch(4, 2, 10), Error);
  CHECK_THROWS_AS(data.eval_batch(-1, 2, 10), Error);
}

// --- preparing --------------------------------------------------------------------------------

TEST_CASE("prepare and read back: train then validation is the text, for every tokenizer") {
  TemporaryFolder folder;
  const std::string first = "Ishmael \u20ac\u00e9\u20ac\u2014\u20ac\u00e9\u00e9\u20ac years ago\n";
  const std::string second =
      "\U0001f40b\U0001f433\U0001f40b\U0001f433\U0001f40b little or no money\n";
  const std::vector<std::string> files = {written(folder, "a.txt", first),
                                          written(folder, "b.txt", second)};
  for (const TokenizerInfo& info : tokenizers()) {
    for (double fraction : {0.05, 0.12, 0.2, 0.28, 0.36, 0.44, 0.5, 0.61, 0.77, 0.9}) {
      CAPTURE(info.name);
      CAPTURE(fraction);
      const std::string out = folder / ("data-" + info.name);
      const DataSummary summary = prepare_data(files, info.name, out, fraction);
      const Dataset data(out);
      const std::string train = decoded(data, Split::train), val = decoded(data, Split::val);
      CHECK(train + val == first + second);
      CHECK(input_error_of([&] { check_utf8(train, "train"); }) == "");  // cut between characters
      CHECK(input_error_of([&] { check_utf8(val, "val"); }) == "");
      const double all = double(first.size() + second.size());
      CHECK(std::abs(double(val.size()) - fraction * all) <= 4);
      CHECK(data.vocab_size() == summary.vocab_size);
      CHECK(names_in(out) == std::vector<std::string>{"data.json", "tokenizer.json",
                                                      "train_000000.bin", "val_000000.bin"});
    }
  }
}

TEST_CASE("prepare: the last fraction by position, cut as nanoGPT cuts") {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 1003; i++) text += char('a' + i % 7);
  prepare_data({written(folder, "a.txt", text)}, "byte", folder / "out", 0.1);
  const Dataset data(folder / "out");
  CHECK(data.tokens(Split::train) == 902);  // int(1003 * 0.9)
  CHECK(data.tokens(Split::val) == 101);
}

TEST_CASE("nothing of validation is ever trained on, the token at the border included") {
  TemporaryFolder folder;
  std::string text;  // 2000 characters, all different: ids are positions
  for (uint32_t c = 0x4e00; c < 0x4e00 + 2000; c++) {
    text += {char(0xe0 | (c >> 12)), char(0x80 | ((c >> 6) & 0x3f)), char(0x80 | (c & 0x3f))};
  }
  prepare_data({written(folder, "a.txt", text)}, "char", folder / "out", 0.25, 700);
  const Dataset data(folder / "out");
  REQUIRE(data.vocab_size() == 2000);
  REQUIRE(data.tokens(Split::train) == 1500);
  std::set<int64_t> trained, validated;
  auto collect = [](std::set<int64_t>& into, const Batch& batch) {
    for (const Tensor& x : {batch.tokens, batch.targets}) {
      for (int64_t id : values(x)) into.insert(id);
    }
  };
  for (int64_t T : {1, 8, 749}) {
    const int64_t epochs = T == 1 ? 2 : 30;
    const int64_t windows = data.sequences_per_epoch(Split::train, T);
    collect(trained, data.batch(Split::train, 4, 0, epochs * windows, T));
    for (int64_t i = 0; i < data.eval_batches(4, T); i++) {
      collect(validated, data.eval_batch(i, 4, T));
    }
  }
  CHECK(trained.size() == 1500);  // all of it, T = 1 leaves nothing but token 0 as a target
  CHECK(*trained.rbegin() == 1499);
  CHECK(validated.size() == 500);
  CHECK(*validated.begin() == 1500);
}

TEST_CASE("char collects its symbols over the whole text: validation has no unknown one") {
  TemporaryFolder folder;
  const std::string text = std::string(100, 'a') + "zz";
  prepare_data({written(folder, "a.txt", text)}, "char", folder / "out", 0.02);
  const Dataset data(folder / "out");
  CHECK(data.vocab_size() == 2);
  CHECK(all_tokens(data.stream(Split::val)) == std::vector<int64_t>{0, 1, 1});  // int(102 * .98)
}

TEST_CASE("bytes per token is that of the validation targets") {
  TemporaryFolder folder;
  // validation: one byte (never a target), then 1 + 2 + 3 bytes
  const std::string text =
      "abcdefgh"
      "ab\u00e9\u20ac";
  const std::string file = written(folder, "a.txt", text);
  prepare_data({file}, "char", folder / "char", 0.46);
  const Dataset data(folder / "char");
  REQUIRE(decoded(data, Split::val) == "ab\u00e9\u20ac");
  CHECK(data.bytes_per_token().value() == doctest::Approx(2.0));
  prepare_data({file}, "byte", folder / "byte", 0.46);
  CHECK(Dataset(folder / "byte").bytes_per_token().value() == doctest::Approx(1.0));
}

TEST_CASE("every file is a document, and where its tokens begin is recorded") {
  TemporaryFolder folder;
  const std::vector<std::string> texts = {
      "caf\u00e9 au lait\n", "", std::string(30, 'x') + "\u20ac", "the last two\n", "the end\n"};
  std::vector<std::string> files;
  std::string joined;
  for (const std::string& text : texts) {
    files.push_back(written(folder, std::to_string(files.size()) + ".txt", text));
    joined += text;
  }
  const std::string whole = written(folder, "whole.txt", joined);
  for (const TokenizerInfo& info : tokenizers()) {
    CAPTURE(info.name);
    const std::string out = folder / info.name;
    const DataSummary summary = prepare_data(files, info.name, out, 0.2);
    const Dataset data(out);
    std::vector<int64_t> all = all_tokens(data.stream(Split::train));
    for (int64_t token : all_tokens(data.stream(Split::val))) all.push_back(token);
    const auto tokenizer = load_tokenizer(data.tokenizer_path());
    for (size_t i = 0; i < texts.size(); i++) {
      const int64_t begin = summary.sources[i].first_token.value(),
                    end = i + 1 < texts.size() ? summary.sources[i + 1].first_token.value()
                                               : int64_t(all.size());
      CHECK(tokenizer->decode(std::vector<int32_t>(all.begin() + begin, all.begin() + end)) ==
            texts[i]);
    }
    // The empty file and the one in validation are no documents to train on; the cut ends one.
    const std::vector<Document> documents = training_documents(data);
    REQUIRE(documents.size() == 3);
    CHECK(documents[0].name == "0.txt");
    CHECK(documents[1].name == "2.txt");
    CHECK(documents[2].name == "3.txt");
    CHECK(documents[0].tokens.begin == 0);
    for (size_t i = 1; i < 3; i++) CHECK(documents[i].tokens.begin == documents[i - 1].tokens.end);
    CHECK(documents[2].tokens.end == data.tokens(Split::train));
    CHECK(documents[2].tokens.size() < int64_t(texts[3].size()));
    // Tokens of bytes and of characters are those of the text as one file.
    prepare_data({whole}, info.name, folder / (info.name + "-whole"), 0.2);
    const Dataset one(folder / (info.name + "-whole"));
    CHECK(training_documents(one).size() == 1);
    for (Split split : {Split::train, Split::val})
      CHECK(all_tokens(one.stream(split)) == all_tokens(data.stream(split)));
  }
}

TEST_CASE("a folder of before documents were recorded opens, and says what it lacks") {
  TemporaryFolder folder;
  const std::string out = folder / "out";
  prepare_data({written(folder, "a.txt", std::string(100, 'x'))}, "byte", out);
  const Dataset before(out);
  const std::string json = read_file(out + "/data.json"), key = ",\n      \"first_token\": 0";
  std::string older = json;
  REQUIRE(contains(older, key));
  older.erase(older.find(key), key.size());
  put_bytes(out + "/data.json", older);
  const Dataset data(out);
  CHECK(values(data.batch(Split::train, 1, 0, 4, 8).tokens) ==
        values(before.batch(Split::train, 1, 0, 4, 8).tokens));
  CHECK(contains(text(describe_data(out)), "documents are not recorded"));
  CHECK(says(input_error_of([&] { training_documents(data); }), out, "prepare the data again"));
  std::string other = json;
  other.replace(other.find("\"tokens\": 95"), 12, "\"tokens\": 90");
  put_bytes(out + "/data.json", other);
  CHECK(says(input_error_of([&] { training_documents(data); }), out + "/data.json",
             "not those of the shards"));
}

TEST_CASE("several shards a split; preparing again leaves none of the old ones") {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 1000; i++) text += char('a' + (i * i + i / 7) % 23);
  const std::string file = written(folder, "a.txt", text), out = folder / "out";
  const DataSummary summary = prepare_data({file}, "byte", out, 0.1, 250);
  CHECK(names_in(out) == std::vector<std::string>{"data.json", "tokenizer.json", "train_000000.bin",
                                                  "train_000001.bin", "train_000002.bin",
                                                  "train_000003.bin", "val_000000.bin"});
  CHECK(summary.train.size() == 4);
  CHECK(summary.train[3].size == 150);
  CHECK(decoded(Dataset(out), Split::train) == text.substr(0, 900));
  prepare_data({file}, "char", out, 0.2);
  CHECK(names_in(out).size() == 4);
  CHECK(decoded(Dataset(out), Split::train) == text.substr(0, 800));
}

TEST_CASE("prepare refuses what it cannot use, and leaves the folder alone") {
  TemporaryFolder folder;
  const std::string text = written(folder, "a.txt", std::string(100, 'x') + "yz");
  const std::string out = folder / "out";
  auto error = [&](const std::vector<std::string>& files, const std::string& tokenizer,
                   double fraction) {
    return input_error_of([&] { prepare_data(files, tokenizer, out, fraction); });
  };
  CHECK(says(error({}, "byte", 0.1), "data prepare", "at least one"));
  CHECK(says(error({folder / "none.txt"}, "byte", 0.1), folder / "none.txt", "No such file"));
  CHECK(says(error({folder.path()}, "byte", 0.1), folder.path(), "directory"));
  CHECK(says(error({written(folder, "empty.txt", "")}, "byte", 0.1), "data prepare", "empty"));
  CHECK(says(error({text}, "cahr", 0.1), "cahr", "did you mean 'char'"));
  for (double fraction : {0.0, 1.0, -0.1, 1.5, std::nan("")}) {
    CAPTURE(fraction);
    CHECK(says(error({text}, "byte", fraction), "fraction", "between 0 and 1"));
  }
  CHECK(says(error({written(folder, "two.txt", "ab")}, "byte", 0.5), "data prepare", "too short"));
  CHECK(says(error({text}, "byte", 0.005), "101 tokens to train", "1 to validate"));
  const std::string latin = written(folder, "latin.txt", "caf\xe9 au lait");
  CHECK(says(error({text, latin}, "char", 0.1), latin, "offset 3"));  // of that file
  CHECK_FALSE(std::filesystem::exists(out));
  CHECK(error({text, latin}, "byte", 0.1) == "");
}

TEST_CASE("prepare refuses a folder with shards of another origin, and keeps them") {
  TemporaryFolder folder;
  const std::string text = written(folder, "a.txt", std::string(100, 'x'));
  std::filesystem::create_directories(folder / "out");
  write_token_file(folder / "out/fineweb_train_000001.bin", std::vector<uint16_t>{1, 2, 3});
  CHECK(says(input_error_of([&] { prepare_data({text}, "byte", folder / "out"); }),
             folder / "out/fineweb_train_000001.bin", "empty folder"));
  CHECK(names_in(folder / "out") == std::vector<std::string>{"fineweb_train_000001.bin"});
}

TEST_CASE("a preparation that fails leaves the data that is there as it was") {
  TemporaryFolder folder;
  const std::string out = folder / "out";
  prepare_data({written(folder, "a.txt", std::string(1000, 'x'))}, "byte", out, 0.1);
  const std::string before = text(describe_data(out));
  {
    const FileLimit full(4000);  // data.json and the shard for validation fit, that to train not
    CHECK_THROWS_AS(
        prepare_data({written(folder, "b.txt", std::string(2000, 'y'))}, "char", out, 0.1), Error);
  }
  CHECK(text(describe_data(out)) == before);
  CHECK(names_in(folder.path()) == std::vector<std::string>{"a.txt", "b.txt", "out"});
}

TEST_CASE("data is prepared anew in one act: who reads the old goes on, and other files stay") {
  TemporaryFolder folder;
  const std::string out = folder / "out", a = written(folder, "a.txt", std::string(1000, 'x')),
                    b = written(folder, "b.txt", std::string(600, 'y'));
  prepare_data({a}, "byte", out, 0.1, 300);
  const Dataset old(out);
  put_bytes(out + "/notes.txt", "mine");
  std::filesystem::create_directories(out + "/mine");
  put_bytes(out + "/train_000001.bin.part", "half");  // of a Murmur that was killed
  std::filesystem::create_directories(out + ".part");
  put_bytes(out + ".part/data.json.part", "half");
  std::filesystem::create_directory_symlink(out, folder / "link");
  prepare_data({b}, "byte", folder / "link/", 0.1, 300);
  CHECK(names_in(out) == std::vector<std::string>{"data.json", "mine", "notes.txt",
                                                  "tokenizer.json", "train_000000.bin",
                                                  "train_000001.bin", "val_000000.bin"});
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK_FALSE(std::filesystem::exists(out + ".part"));
  CHECK(all_tokens(old.stream(Split::train)) == std::vector<int64_t>(900, 'x'));
  CHECK(all_tokens(Dataset(out).stream(Split::train)) == std::vector<int64_t>(540, 'y'));

  std::filesystem::create_directories(out + ".part");
  put_bytes(out + ".part/notes.txt", "mine");
  CHECK(says(input_error_of([&] { prepare_data({a}, "byte", out); }), out + ".part", "notes.txt"));
}

// --- the folder -------------------------------------------------------------------------------

TEST_CASE("a folder that is not one of tokens is refused") {
  TemporaryFolder folder;
  auto error = [&](const std::string& dir) { return input_error_of([&] { Dataset data(dir); }); };
  CHECK(says(error(folder / "none"), folder / "none", "murmur data prepare"));
  CHECK(says(error(folder.path()), folder.path(), "no *train*.bin"));
  put_shards(folder, "train", {10});
  CHECK(says(error(folder.path()), folder.path(), "no *val*.bin"));
  put_shards(folder, "val", {1});
  CHECK(says(error(folder.path()), folder.path(), "the val shards hold 1 tokens"));
  put_shards(folder, "val", {10});
  CHECK(error(folder.path()) == "");
  put_shards(folder, "val_of_train", {10});  // would be read as both
  CHECK(says(error(folder.path()), "fineweb_val_of_train_000000.bin", "both train and val"));
}

TEST_CASE("shards without a tokenizer are GPT-2 tokens, without bits per byte") {
  Counting counting({100, 20}, {30});
  const Dataset data = counting.open();
  CHECK(data.vocab_size() == 50257);
  CHECK(data.tokenizer_path() == "");
  CHECK_FALSE(data.bytes_per_token().has_value());
  write_token_file(counting.folder / "x_val.bin", std::vector<uint16_t>{1, 50257});
  CHECK(says(input_error_of([&] { counting.open(); }), "x_val.bin", "token 50257 at position 1"));
}

TEST_CASE("shards are joined in the order of their names") {
  TemporaryFolder folder;
  write_token_file(folder / "train_000010.bin", std::vector<uint16_t>{3});
  write_token_file(folder / "train_000002.bin", std::vector<uint16_t>{2});
  write_token_file(folder / "train_000001.bin", std::vector<uint16_t>{1});
  put_shards(folder, "val", {10});
  CHECK(all_tokens(Dataset(folder.path()).stream(Split::train)) == std::vector<int64_t>{1, 2, 3});
}

TEST_CASE("a folder whose preparing was cut off is refused") {
  TemporaryFolder folder;
  const std::string text = written(folder, "a.txt", std::string(100, 'x')), out = folder / "out";
  prepare_data({text}, "byte", out);
  std::filesystem::remove(out + "/tokenizer.json");
  CHECK(says(input_error_of([&] { Dataset data(out); }), out, "did not finish"));
  prepare_data({text}, "byte", out);
  CHECK(input_error_of([&] { Dataset data(out); }) == "");
}

TEST_CASE("a tokenizer that does not fit the shards is refused") {
  TemporaryFolder folder;
  const std::string text = written(folder, "a.txt", std::string(100, 'x')), out = folder / "out";
  prepare_data({text}, "byte", out);
  put_bytes(out + "/tokenizer.json", R"({"tokenizer": "char", "symbols": "abc"})");
  CHECK(says(input_error_of([&] { Dataset data(out); }), out + "/train_000000.bin",
             "token 120 at position 0 is outside the vocabulary of 3"));
}

TEST_CASE("describe: what is there, checked against the checksums") {
  TemporaryFolder folder;
  const std::string text = written(folder, "a.txt", std::string(100, 'x')), out = folder / "out";
  const DataSummary prepared = prepare_data({text, text}, "byte", out, 0.1);
  const DataSummary described = describe_data(out);
  CHECK(murmur::text(described) == murmur::text(prepared));
  for (const char* part : {"byte tokenizer, 256 ids", "180 tokens in 1 shard", "20 tokens",
                           "1.000 bytes per token", "a.txt, 100 bytes, crc32c ",
                           "2 documents in train, the largest: a.txt of 100 tokens, a.txt of 80"}) {
    CAPTURE(part);
    CHECK(contains(murmur::text(described), part));
  }
  const std::string shard = out + "/train_000000.bin";
  std::string bytes = read_file(shard);
  bytes[1024] ^= 1;
  put_bytes(shard, bytes);
  CHECK(says(input_error_of([&] { describe_data(out); }), shard, "its tokens are not those"));
  std::filesystem::rename(shard, out + "/other_train.bin");
  CHECK(says(input_error_of([&] { describe_data(out); }), shard, "missing"));
  std::filesystem::rename(out + "/other_train.bin", shard);
  const std::string json = read_file(out + "/data.json"), key = "\"first_token\": 100";
  REQUIRE(contains(json, key));
  for (const char* number :
       {"1e300", "18446744073709551615", "-1", "9007199254740993000", "\"\""}) {
    CAPTURE(number);
    std::string forged = json;
    put_bytes(out + "/data.json", forged.replace(forged.find(key) + 15, key.size() - 15, number));
    CHECK(says(input_error_of([&] { describe_data(out); }), out + "/data.json", "damaged"));
    CHECK(says(input_error_of([&] { training_documents(Dataset(out)); }), out + "/data.json",
               "damaged"));
  }
  put_bytes(out + "/data.json", "{\"tokenizer\": 1");
  CHECK(says(input_error_of([&] { describe_data(out); }), out + "/data.json", "damaged"));
}

TEST_CASE("describe: a folder of llm.c shards") {
  const Counting counting({100, 20}, {30});
  const std::string lines = text(describe_data(counting.folder.path()));
  CHECK(contains(lines, "GPT-2 shards without tokenizer, 50257 ids"));
  CHECK(contains(lines, "120 tokens in 2 shards"));
  CHECK_FALSE(contains(lines, "bytes per token"));
}

TEST_CASE("digests tell data and tokenizers apart, and not the folders they lie in") {
  TemporaryFolder folder;
  const std::string words(100, 'x'), other = std::string(99, 'x') + "y";
  auto prepared = [&](const std::string& name, const std::string& bytes, const char* tokenizer) {
    const std::string text = written(folder, name + ".txt", bytes), out = folder / name;
    prepare_data({text}, tokenizer, out, 0.1);
    return out;
  };
  const std::string a = prepared("a", words, "byte"), same = prepared("b", words, "byte");
  auto data_of = [](const std::string& dir) { return data_digest(Dataset(dir)); };
  auto tokenizer_of = [](const std::string& dir) {
    return tokenizer_digest(Dataset(dir).tokenizer_path());
  };
  CHECK(data_of(a).starts_with("90 + 10 tokens, crc32c "));
  CHECK(data_of(a) == data_of(same));
  CHECK(data_of(a) != data_of(prepared("c", other, "byte")));
  CHECK(data_of(a) != data_of(prepared("d", "y" + std::string(99, 'x'), "byte")));
  CHECK(tokenizer_of(a).starts_with("byte, crc32c "));
  CHECK(tokenizer_of(a) == tokenizer_of(folder / "c"));
  CHECK(tokenizer_of(prepared("e", words, "char")) != tokenizer_of(prepared("f", other, "char")));
  // Without data.json (and so without tokenizer.json) the tokens themselves are read.
  std::filesystem::remove(same + "/data.json");
  CHECK(data_of(a) == data_of(same));
  std::filesystem::remove(same + "/tokenizer.json");
  CHECK(data_of(a) == data_of(same));
  CHECK(tokenizer_of(same) == "gpt2");
}
