// tests/train/safetensors_test.cpp - what is written reads back; what is wrong is refused.
#include "train/safetensors.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tests/train/temporary_folder.h"
#include "train/files.h"

using namespace murmur;
using namespace std::string_literals;  // "zero \0 inside"s

namespace {

std::string length_prefix(uint64_t n) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return length_prefix(header.size()) + header + data;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string bytes_of(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.raw()), tensor.bytes()};
}

Tensor from_bytes(Shape shape, DType dtype, const std::string& bytes) {
  Tensor tensor(shape, dtype);
  REQUIRE(tensor.bytes() == bytes.size());
  std::memcpy(tensor.raw(), bytes.data(), bytes.size());
  return tensor;
}

// One tensor "t" of `count` elements in a file no other program sealed.
SafetensorsFile open_one(const TemporaryFolder& folder, const std::string& dtype, size_t count,
                         const std::string& data) {
  put_bytes(folder / "one",
            file_of(R"({"t":{"dtype":")" + dtype + R"(","shape":[)" + std::to_string(count) +
                        R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                    data));
  return SafetensorsFile::open(folder / "one");
}

void read_everything(const std::string& path) {
  SafetensorsFile file = SafetensorsFile::open(path);
  for (const std::string& name : file.names()) file.read(name);
}

std::vector<NamedTensor> small_model() {
  return {{"w", Tensor::of({1, 2, 3, 4, 5, 6}, {2, 3})},
          {"h", Tensor::of({1, -2, 0.5}, {3}, DType::bf16)},
          {"i", Tensor::of({7, -8}, {2}, DType::i32)},
          {"d", Tensor::of({1e300}, {}, DType::f64)}};
}

}  // namespace

TEST_CASE("every element type and shape reads back bit for bit") {
  TemporaryFolder folder;
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  std::string floats = bytes_of<float>({0.f, -0.f, 1e-45f, -3.4e38f, INFINITY, kNan});
  std::string doubles = bytes_of<double>({0.1, -0.0, 5e-324, -INFINITY});
  std::string halves = bytes_of<uint16_t>({0, 0x8000, 1, 0x7f80, 0x7fc1, 0x3f80});
  std::string integers = bytes_of<int32_t>({0, -1, INT32_MIN, INT32_MAX});
  std::vector<NamedTensor> tensors = {
      {"f32", from_bytes({2, 3}, DType::f32, floats)},
      {"f64", from_bytes({4}, DType::f64, doubles)},
      {"bf16", from_bytes({3, 2}, DType::bf16, halves)},
      {"i32", from_bytes({2, 2, 1}, DType::i32, integers)},
      {"rank 0", Tensor::of({2.5}, {})},
      {"rank 5", Tensor::of({1, 2, 3, 4}, {1, 2, 1, 2, 1})},
      {"empty", Tensor(Shape{0, 3})},
      {"empty bf16", Tensor(Shape{4, 0}, DType::bf16)},
      {"", Tensor::of({1}, {1})},
      {"quote \" backslash \\ newline \n zero \0 end"s, Tensor::of({1}, {1})},
      {"\u6ce2\u00e9", Tensor::of({1}, {1})},
  };
  std::string path = folder / "all.safetensors";
  std::string checksum = write_safetensors(path, tensors, {{"step", "12"}, {"say", "\"\n"}});

  SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.path() == path);
  CHECK(file.checksum() == checksum);
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.metadata().at("step") == "12");
  CHECK(file.metadata().at("say") == "\"\n");
  CHECK(file.names().size() == tensors.size());
  CHECK(!file.contains("f16"));
  for (const NamedTensor& written : tensors) {
    CAPTURE(written.name);
    REQUIRE(file.contains(written.name));
    Tensor back = file.read(written.name);
    CHECK(back.shape() == written.tensor.shape());
    CHECK(back.dtype() == written.tensor.dtype());
    CHECK(bytes_of(back) == bytes_of(written.tensor));
  }
  CHECK(says(input_error_of([&] { file.read("f16"); }), path, "no tensor \"f16\""));
}

TEST_CASE("a file without tensors is a file") {
  TemporaryFolder folder;
  write_safetensors(folder / "none", {});
  CHECK(SafetensorsFile::open(folder / "none").names().empty());
}

TEST_CASE("a view is written as the elements it shows") {
  TemporaryFolder folder;
  Tensor matrix = Tensor::of({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {3, 4});
  std::vector<NamedTensor> views = {{"columns", matrix.columns(1, 3)},
                                    {"rows", matrix.slice(1, 2)}};
  write_safetensors(folder / "views", views);
  SafetensorsFile file = SafetensorsFile::open(folder / "views");
  CHECK(file.read("columns").shape() == Shape{3, 2});
  CHECK(bytes_of(file.read("columns")) == bytes_of<float>({1, 2, 5, 6, 9, 10}));
  CHECK(bytes_of(file.read("rows")) == bytes_of<float>({4, 5, 6, 7}));
}

TEST_CASE("the bytes of a tiny file are these") {
  // The checksum comes from an independent CRC-32C.
  TemporaryFolder folder;
  std::vector<NamedTensor> tensors = {{"a", Tensor::of({1}, {}, DType::bf16)},
                                      {"b", Tensor::of({1, -2}, {2})}};
  CHECK(write_safetensors(folder / "tiny", tensors, {{"who", "test"}}) == "c37bab79");
  std::string header = R"({"__metadata__":{"murmur.crc32c":"c37bab79","format":"pt","who":"test"},)"
                       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}})"
                       "     ";
  CHECK(read_file(folder / "tiny") ==
        "\xb8\0\0\0\0\0\0\0"s + header + "\x00\x00\x80\x3f\x00\x00\x00\xc0\x80\x3f"s);
}

TEST_CASE("tensors lie by alignment, then by name, and the data starts at a multiple of eight") {
  TemporaryFolder folder;
  for (int extra = 0; extra < 8; extra++) {
    std::vector<NamedTensor> tensors;
    for (const char* name : {"c", "a"}) {
      for (DType dtype : {DType::bf16, DType::i32, DType::f64, DType::f32}) {
        tensors.push_back({name + std::string(name_of(dtype)), Tensor::of({1}, {1}, dtype)});
      }
    }
    write_safetensors(folder / "order", tensors, {{"pad", std::string(size_t(extra), '.')}});
    std::string bytes = read_file(folder / "order");
    uint64_t n;
    std::memcpy(&n, bytes.data(), 8);
    CHECK(n % 8 == 0);
    size_t before = 0;
    for (const char* name :
         {"afp64", "cfp64", "afp32", "aint32", "cfp32", "cint32", "abf16", "cbf16"}) {
      size_t at = bytes.find("\"" + std::string(name) + "\"");
      CHECK(at != bytes.npos);
      CHECK(at > before);
      before = at;
    }
  }
}

TEST_CASE("a file of the Python package reads") {
  // safetensors 0.8.0 under torch 2.15.0: save(tensors, metadata={"format": "pt", "who": "python"})
  TemporaryFolder folder;
  put_bytes(
      folder / "python",
      "\xc0\x01\x00\x00\x00\x00\x00\x00"s
      R"({"__metadata__":{"format":"pt","who":"python"},"ids":{"dtype":"I64","shape":[3],)"
      R"("data_offsets":[0,24]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[24,24]},)"
      R"("s":{"dtype":"F32","shape":[],"data_offsets":[24,28]},"w":{"dtype":"F32","shape":[2,2],)"
      R"("data_offsets":[28,44]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[44,48]},)"
      R"("h":{"dtype":"F16","shape":[2],"data_offsets":[48,52]},"mask":{"dtype":"BOOL",)"
      R"("shape":[2],"data_offsets":[52,54]}}       )"
      "\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\t\0\0\0\0\0\0\0\0\0 @\0\0\x80?\0\0\0@\0\0@@\0\0\x90\xc0"
      "\x80?\0\xc0\0>\0\xb4\x01\0"s);
  SafetensorsFile file = SafetensorsFile::open(folder / "python");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"who", "python"}});
  CHECK(file.checksum().empty());
  CHECK(bytes_of(file.read("ids")) == bytes_of<int32_t>({7, 8, 9}));
  CHECK(file.read("e").shape() == Shape{0, 3});
  CHECK(file.read("s").shape() == Shape{});
  CHECK(bytes_of(file.read("s")) == bytes_of<float>({2.5f}));
  CHECK(file.read("w").shape() == Shape{2, 2});
  CHECK(bytes_of(file.read("w")) == bytes_of<float>({1, 2, 3, -4.5f}));
  CHECK(file.read("b").dtype() == DType::bf16);
  CHECK(bytes_of(file.read("b")) == bytes_of<uint16_t>({0x3f80, 0xc000}));
  CHECK(bytes_of(file.read("h")) == bytes_of<float>({1.5f, -0.25f}));
  CHECK(says(input_error_of([&] { file.read("mask"); }), "python", "\"mask\" is BOOL; convert"));
}

TEST_CASE("F16 becomes the same number in fp32, from subnormals to infinities") {
  TemporaryFolder folder;
  std::vector<uint16_t> halves = {0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00,
                                  0x3555, 0x7bff, 0xfbff, 0x7c00, 0xfc00};
  std::vector<float> floats = {0.f,         -0.f,    0x1p-24f, -1023 * 0x1p-24f, 0x1p-14f, 1.f,
                               0x1.554p-2f, 65504.f, -65504.f, INFINITY,         -INFINITY};
  Tensor read = open_one(folder, "F16", halves.size(), bytes_of(halves)).read("t");
  CHECK(read.dtype() == DType::f32);
  CHECK(bytes_of(read) == bytes_of(floats));
  Tensor nan = open_one(folder, "F16", 1, bytes_of<uint16_t>({0x7e01})).read("t");
  CHECK(std::isnan(nan.data<float>()[0]));
}

TEST_CASE("whole numbers become int32 where they fit, and are refused where they do not") {
  TemporaryFolder folder;
  auto bytes_read = [&](const char* dtype, size_t count, const std::string& data) {
    Tensor read = open_one(folder, dtype, count, data).read("t");
    CHECK(read.dtype() == DType::i32);
    return bytes_of(read);
  };
  CHECK(bytes_read("U8", 2, bytes_of<uint8_t>({0, 255})) == bytes_of<int32_t>({0, 255}));
  CHECK(bytes_read("U16", 2, bytes_of<uint16_t>({0, 65535})) == bytes_of<int32_t>({0, 65535}));
  CHECK(bytes_read("I64", 2, bytes_of<int64_t>({INT32_MIN, INT32_MAX})) ==
        bytes_of<int32_t>({INT32_MIN, INT32_MAX}));
  for (int64_t wrong : {int64_t(INT32_MAX) + 1, int64_t(INT32_MIN) - 1, INT64_MIN}) {
    SafetensorsFile file = open_one(folder, "I64", 2, bytes_of<int64_t>({0, wrong}));
    CHECK(says(input_error_of([&] { file.read("t"); }), "one",
               std::to_string(wrong) + ", beyond int32"));
  }
  // More than one piece of reading, with a seam within the period of 251.
  std::vector<uint8_t> many(2'500'001);
  std::vector<int32_t> wide(many.size());
  for (size_t i = 0; i < many.size(); i++) wide[i] = many[i] = uint8_t(i % 251);
  CHECK(bytes_read("U8", many.size(), bytes_of(many)) == bytes_of(wide));
}

TEST_CASE("element types Murmur does not keep are refused by name, not the whole file") {
  TemporaryFolder folder;
  for (const char* dtype :
       {"BOOL", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U32",
        "C64", "U64", "F4", "F6_E2M3", "F6_E3M2"}) {
    CAPTURE(dtype);
    std::string name = dtype;
    int bits = name == "C64" || name == "U64" ? 64 : name == "U32" ? 32 : name == "I16" ? 16 : 8;
    if (name == "F4") bits = 4;
    if (name.starts_with("F6")) bits = 6;
    SafetensorsFile file = open_one(folder, name, 4, std::string(size_t(bits / 2), 'x'));
    CHECK(says(input_error_of([&] { file.read("t"); }), "one", "is " + name + "; convert"));
  }
  SafetensorsFile deep = [&] {
    put_bytes(folder / "deep",
              file_of(R"({"t":{"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[0,1]}})", "x"));
    return SafetensorsFile::open(folder / "deep");
  }();
  CHECK(says(input_error_of([&] { deep.read("t"); }), "deep", "6 dimensions"));
}

TEST_CASE("unusual files that are right are accepted") {
  TemporaryFolder folder;
  const std::string t = R"("t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  for (const std::string& header : {
           "{" + t + "}",
           "{" + t + R"(,"__metadata__":{}})",
           R"({"__metadata__":null,)" + t + "}",
           "{ \n\t" + t + " }" + std::string(1000, ' '),
           R"({"t":{"data_offsets":[0,2],"shape":[1,2,1],"dtype":"U8"}})"s,
           R"({"\u0074":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})"s,
           R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
           R"("z":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[1,1]},)"
           R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})"s,
       }) {
    CAPTURE(header);
    put_bytes(folder / "odd", file_of(header, "ab"));
    SafetensorsFile file = SafetensorsFile::open(folder / "odd");
    CHECK(file.metadata().empty());
    Tensor read = file.read("t");
    CHECK(read.data<int32_t>()[read.numel() - 1] == 'b');
    for (const std::string& name : file.names()) file.read(name);
  }
}

TEST_CASE("every item of the reject list is refused in one line that says what is wrong") {
  TemporaryFolder folder;
  auto tensor = [](const char* name, const char* rest) {
    return "\"" + std::string(name) + "\":{" + rest + "}";
  };
  const std::string ok = tensor("t", R"("dtype":"U8","shape":[2],"data_offsets":[0,2])");
  struct Row {
    std::string bytes, problem;
  };
  auto one = [&](const char* rest) { return file_of("{" + tensor("t", rest) + "}", "ab"); };
  std::vector<Row> rows = {
      {"", "too short"},
      {"1234567", "too short"},
      {length_prefix(0), "does not start with '{'"},
      {length_prefix(3) + "{}", "truncated: its header has 3 bytes, the file 2"},
      {length_prefix(100'000'001), "header of 100000001 bytes"},
      {length_prefix(UINT64_MAX) + "{}", "header of 18446744073709551615 bytes"},
      {length_prefix(UINT64_MAX - 7) + "{}", "header of"},
      {"GIF89a and some more of it", "not a safetensors file"},
      {file_of(" {}"), "does not start with '{'"},
      {file_of("[]"), "does not start with '{'"},
      {file_of("{"), "not JSON"},
      {file_of("{} x"), "not JSON"},
      {file_of("{}{}"), "not JSON"},
      {file_of("{}\0"s), "zero byte"},
      {file_of("{\"a\xff\":1}"), "not JSON in UTF-8, from its byte 4"},
      {file_of("{\"\xc0\xaf\":1}"), "UTF-8"},
      {file_of("{\"\xed\xa0\x80\":1}"), "UTF-8"},
      {file_of(R"({"\ud800":1})"), "not JSON"},
      {file_of("{// comment\n}"), "not JSON"},
      {file_of("{" + ok + "," + ok + "}", "ab"), "\"t\" twice"},
      {file_of("{" + ok + R"(,"\u0074":1})", "ab"), "\"t\" twice"},
      {one(R"("dtype":"U8","shape":[2],"shape":[2],"data_offsets":[0,2])"), "\"shape\" twice"},
      {file_of(R"({"__metadata__":{"a":"1","a":"1"}})"), "\"a\" twice"},
      {file_of(R"({"__metadata__":{},"__metadata__":{}})"), "\"__metadata__\" twice"},
      {file_of(R"({"__metadata__":[]})"), "__metadata__ is not"},
      {file_of(R"({"__metadata__":{"a":1}})"), "\"a\" is not a text"},
      {file_of(R"({"__metadata__":{"a":{"b":"c"}}})"), "\"a\" is not a text"},
      {file_of(R"({"a":[[0]]})"), "needs dtype"},
      {file_of(R"({"a":[[[0]]]})"), "nested"},
      {file_of(R"({"a":)" + std::string(1'000'000, '[')), "nested"},
      {file_of(R"({"a":)" + std::string(1'000'000, '{')), "not JSON"},
      {file_of(R"({"t":1})"), "needs dtype"},
      {one(R"("dtype":"U8","shape":[2])"), "needs dtype"},
      {one(R"("dtype":"U8","shape":[2],"offsets":[0,2])"), "has no data_offsets"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[0,2],"strides":[1])"), "needs dtype"},
      {one(R"("dtype":"u8","shape":[2],"data_offsets":[0,2])"), "unknown dtype \"u8\""},
      {one(R"("dtype":7,"shape":[2],"data_offsets":[0,2])"), "dtype: not a text"},
      {one(R"("dtype":"U8","shape":2,"data_offsets":[0,2])"), "shape: not a list"},
      {one(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])"), "shape: not a whole number"},
      {one(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])"), "shape: not a whole number"},
      {one(R"("dtype":"U8","shape":["2"],"data_offsets":[0,2])"), "shape: not a whole number"},
      {one(R"("dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[0,0])"),
       "shape: not a whole"},
      {one(R"("dtype":"U8","shape":[0,18446744073709551616],"data_offsets":[0,0])"),
       "shape: not a whole"},
      {one(R"("dtype":"U8","shape":[1e999],"data_offsets":[0,0])"), "beyond any size"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[2])"), "data_offsets: not a pair"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[0,1,2])"), "data_offsets: not a pair"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])"), "begins at 2, ends at 0"},
      {one(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])"),
       "truncated: header says 3 bytes of data, file has 2"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), "1 bytes after the last tensor"},
      {file_of("{}", "a"), "1 bytes after the last tensor"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"),
       "hole: no tensor owns the 1 bytes before \"t\""},
      {one(R"("dtype":"U8","shape":[9223372036854775806],"data_offsets":[1,9223372036854775807])"),
       "too large"},
      {one(R"("dtype":"U16","shape":[2],"data_offsets":[0,2])"),
       "needs 4 bytes, its offsets give 2"},
      {one(R"("dtype":"U8","shape":[],"data_offsets":[0,2])"), "needs 1 bytes"},
      {one(R"("dtype":"U8","shape":[0],"data_offsets":[0,2])"), "needs 0 bytes"},
      {one(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), "no whole number of bytes"},
      // 2^32 * 2^32 = 2^64 = 0, and 2^61 * 64 bits = 2^67 = 0, for those who do not look.
      {one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), "too large"},
      {one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), "too large"},
      {one(R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"), "too large"},
      {file_of(
           "{" + ok + "," + tensor("u", R"("dtype":"U8","shape":[2],"data_offsets":[1,3])") + "}",
           "abc"),
       "\"u\" overlaps"},
      {file_of(
           "{" + ok + "," + tensor("u", R"("dtype":"U8","shape":[2],"data_offsets":[0,2])") + "}",
           "ab"),
       "\"u\" overlaps"},
      {file_of(
           "{" + ok + "," + tensor("u", R"("dtype":"U8","shape":[0],"data_offsets":[1,1])") + "}",
           "ab"),
       "\"u\" overlaps"},
      {file_of(
           "{" + ok + "," + tensor("u", R"("dtype":"U8","shape":[1],"data_offsets":[3,4])") + "}",
           "abcd"),
       "hole"},
      {file_of("{\"new\\nline\xce\xb2\":1}"), "tensor \"new\\nline\\u03b2\""},
  };
  std::string path = folder / "bad";
  for (const Row& row : rows) {
    put_bytes(path, row.bytes);
    std::string message = input_error_of([&] { read_everything(path); });
    std::string text = row.bytes.substr(std::min<size_t>(8, row.bytes.size()), 200);
    INFO("after the length: ", text);
    INFO("message:          ", message);
    CHECK(says(message, path, row.problem));
    CHECK(message.size() < 400);
  }
  CHECK(says(input_error_of([&] { SafetensorsFile::open(folder / "gone"); }), "gone",
             "No such file"));
  CHECK(says(input_error_of([&] { SafetensorsFile::open(folder.path()); }), folder.path(),
             "directory"));
}

TEST_CASE("any single flipped bit of a file that Murmur wrote is noticed") {
  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
  write_safetensors(path, small_model(), {{"step", "12"}});
  const std::string whole = read_file(path);
  read_everything(path);
  std::vector<size_t> unnoticed;
  for (size_t bit = 0; bit < 8 * whole.size(); bit++) {
    std::string damaged = whole;
    damaged[bit / 8] = char(damaged[bit / 8] ^ (1 << bit % 8));
    put_bytes(path, damaged);
    if (input_error_of([&] { read_everything(path); }).empty()) unnoticed.push_back(bit);
  }
  CHECK(unnoticed == std::vector<size_t>{});
}

TEST_CASE("a file that lost its end, or gained a byte, is refused at every length") {
  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
  write_safetensors(path, small_model());
  const std::string sealed = read_file(path);
  std::string plain = sealed;  // the same without a seal
  plain.replace(plain.find("murmur.crc32c"), 13, "another.texts");
  put_bytes(path, plain);
  REQUIRE(input_error_of([&] { read_everything(path); }).empty());
  for (const std::string& whole : {sealed, plain}) {
    for (size_t size = 0; size < whole.size(); size++) {
      put_bytes(path, whole.substr(0, size));
      CAPTURE(size);
      CHECK(!input_error_of([&] { read_everything(path); }).empty());
    }
    put_bytes(path, whole + '\0');
    CHECK(!input_error_of([&] { read_everything(path); }).empty());
  }
}

TEST_CASE("flipped bits in a file without a seal never do worse than an InputError") {
  TemporaryFolder folder;
  std::string path = folder / "foreign";
  const std::string whole =
      file_of(R"({"__metadata__":null,"a":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]},)"
              R"("b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}})",
              std::string(22, '\0'));
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * whole.size(); bit++) {
    std::string damaged = whole;
    damaged[bit / 8] = char(damaged[bit / 8] ^ (1 << bit % 8));
    put_bytes(path, damaged);
    refused += !input_error_of([&] { read_everything(path); }).empty();
  }
  CHECK(refused > 4 * whole.size());
}

TEST_CASE("a seal that was changed, moved or cut is not a missing seal") {
  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
  write_safetensors(path, small_model());
  const std::string whole = read_file(path);
  auto message_after = [&](const std::string& from, const std::string& to) {
    std::string changed = whole;
    changed.replace(changed.find(from), from.size(), to);
    put_bytes(path, changed);
    return input_error_of([&] { read_everything(path); });
  };
  CHECK(says(message_after("murmur.crc32c", "murmur.crc32d"), path, "damaged, or rewritten"));
  CHECK(says(message_after("\"w\"", "\"v\""), path, "damaged: its checksum is"));
  CHECK(says(message_after("[2,3]", "[3,2]"), path, "damaged: its checksum is"));
  CHECK(says(message_after("pt", "tf"), path, "damaged: its checksum is"));
  std::string moved = R"({"__metadata__":{"format":"pt","murmur.crc32c":"00000000"}})";
  put_bytes(path, file_of(moved));
  CHECK(says(input_error_of([&] { read_everything(path); }), path, "rewritten by another program"));
  put_bytes(path, file_of(R"({"__metadata__":{"murmur.crc32c":"1"}})"));
  CHECK(says(input_error_of([&] { read_everything(path); }), path, "damaged: its checksum is"));
}

TEST_CASE("an open file that becomes shorter is an InputError, not a crash") {
  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
  write_safetensors(path, small_model());
  SafetensorsFile file = SafetensorsFile::open(path);
  std::filesystem::resize_file(path, 100);
  CHECK(says(input_error_of([&] { file.read("w"); }), path, "became shorter"));
}

TEST_CASE("what cannot be written is an Error that names the tensor, and leaves no file") {
  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
  Tensor t = Tensor::of({1}, {1});
  using Tensors = std::vector<NamedTensor>;
  CHECK_THROWS_WITH_AS(write_safetensors(path, Tensors{{"a", t}, {"b", t}, {"a", t}}),
                       "safetensors: two tensors are called \"a\"; rename one", Error);
  CHECK_THROWS_WITH_AS(write_safetensors(path, Tensors{{"\xff", t}}),
                       doctest::Contains("is not UTF-8"), Error);
  CHECK_THROWS_WITH_AS(write_safetensors(path, Tensors{{"a", Tensor()}}),
                       "safetensors: \"a\" has no tensor", Error);
  CHECK_THROWS_AS(write_safetensors(path, Tensors{{"__metadata__", t}}), Error);
  CHECK_THROWS_AS(write_safetensors(path, Tensors{}, {{"format", "tf"}}), Error);
  CHECK_THROWS_AS(write_safetensors(path, Tensors{}, {{"murmur.crc32c", "0"}}), Error);
  CHECK_THROWS_AS(write_safetensors(path, Tensors{}, {{"a", "\xff"}}), Error);
  CHECK(std::filesystem::is_empty(folder.path()));
}
