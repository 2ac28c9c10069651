// train/safetensors.cpp - writes the header in the reference writer's form; reads with distrust.
//
// Reading uses pread, not mmap: a file that shrinks while it is open is then an error, not SIGBUS.
#include "train/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>  // memcpy
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>

#include "tensor/check.h"    // Error, InputError
#include "tensor/ops.h"      // copy
#include "train/checksum.h"  // crc32c
#include "train/files.h"     // DurableFile, InputFile
#include "train/json.h"

namespace murmur {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference reader's limit
constexpr size_t kPiece = size_t(1) << 20;    // bytes read at a time
constexpr std::string_view kSealKey = "murmur.crc32c";
constexpr std::string_view kSealed = R"({"__metadata__":{"murmur.crc32c":")";  // digits follow

struct Format {
  std::string_view name;
  int bits;                   // per element
  std::optional<DType> kept;  // what read() makes of it; nothing: refused
};

constexpr Format kFormats[] = {
    {"F64", 64, DType::f64}, {"F32", 32, DType::f32}, {"BF16", 16, DType::bf16},
    {"F16", 16, DType::f32}, {"I64", 64, DType::i32}, {"I32", 32, DType::i32},
    {"U16", 16, DType::i32}, {"U8", 8, DType::i32},   {"BOOL", 8, {}},
    {"I8", 8, {}},           {"I16", 16, {}},         {"U32", 32, {}},
    {"U64", 64, {}},         {"C64", 64, {}},         {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},      {"F8_E8M0", 8, {}},      {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},  {"F6_E2M3", 6, {}},      {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

const Format* find_format(std::string_view name) {
  auto found = std::find_if(std::begin(kFormats), std::end(kFormats),
                            [&](const Format& format) { return format.name == name; });
  return found == std::end(kFormats) ? nullptr : found;
}

// Is a tensor of `dtype` stored in this format as it is, without conversion?
bool stores(const Format& format, DType dtype) {
  return format.kept == dtype && format.bits == 8 * int(size_of(dtype));
}

std::string_view format_name(DType dtype) {
  return std::find_if(std::begin(kFormats), std::end(kFormats),
                      [&](const Format& format) { return stores(format, dtype); })
      ->name;
}

// A name from a file, fit for one line of an error message.
std::string shown(const std::string& name) {
  return json(name.substr(0, 100)).dump(-1, ' ', true, json::error_handler_t::replace);
}

[[noreturn]] void refuse(const std::string& path, const std::string& problem,
                         const char* remedy = "use another copy") {
  throw InputError(fmt::format("{}: {}; {}", path, problem, remedy));
}

// Writing -----------------------------------------------------------------------------------------

std::string quoted(const std::string& text) {
  try {
    return json(text).dump();
  } catch (const json::type_error&) {
    throw Error("safetensors: " + shown(text) + " is not UTF-8; JSON cannot hold it");
  }
}

std::vector<const NamedTensor*> in_file_order(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& named : tensors) {
    check(bool(named.tensor),
          [&] { return "safetensors: " + shown(named.name) + " has no tensor"; });
    check(named.name != "__metadata__", "safetensors: a tensor cannot be called __metadata__");
    order.push_back(&named);
  }
  auto key = [](const NamedTensor* named) {
    return std::tuple(-int(size_of(named->tensor.dtype())), std::string_view(named->name));
  };
  std::sort(order.begin(), order.end(), [&](auto* a, auto* b) { return key(a) < key(b); });
  std::set<std::string_view> seen;
  for (const NamedTensor* named : order) {
    check(seen.insert(named->name).second, [&] {
      return "safetensors: two tensors are called " + shown(named->name) + "; rename one";
    });
  }
  return order;
}

std::string header_of(const std::vector<const NamedTensor*>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::string header = std::string(kSealed) + kNoChecksum + R"(","format":"pt")";
  for (const auto& item : metadata) {
    check(item.first != "format" && item.first != kSealKey, [&] {
      return "safetensors: metadata " + shown(item.first) + " is written by itself; leave it out";
    });
    header += fmt::format(",{}:{}", quoted(item.first), quoted(item.second));
  }
  header += "}";
  uint64_t begin = 0;
  for (const NamedTensor* named : tensors) {
    const Tensor& tensor = named->tensor;
    std::string sizes;
    for (int i = 0; i < tensor.shape().rank(); i++) {
      sizes += fmt::format("{}{}", i ? "," : "", tensor.shape()[i]);
    }
    header += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          quoted(named->name), format_name(tensor.dtype()), sizes, begin,
                          begin + tensor.bytes());
    begin += tensor.bytes();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  check(header.size() <= kMaxHeader, "safetensors: too many tensors, the header is above 100 MB");
  return header;
}

// The same elements in one piece in the host's memory.
Tensor on_host(const Tensor& tensor) {
  if (tensor.device() == Device::cpu && tensor.contiguous()) return tensor;
  Tensor host(tensor.shape(), tensor.dtype());
  ops::copy(tensor, host);
  return host;
}

// Reading -----------------------------------------------------------------------------------------

std::string read_header(const InputFile& file) {
  if (file.bytes() < 8) {
    refuse(file.path(),
           fmt::format("has {} bytes, too short for a safetensors file", file.bytes()));
  }
  uint64_t size;
  file.read_at(0, &size, 8);
  if (size > kMaxHeader) {
    refuse(file.path(),
           fmt::format("not a safetensors file, or damaged: a header of {} bytes", size));
  }
  if (size > file.bytes() - 8) {
    refuse(file.path(),
           fmt::format("truncated: its header has {} bytes, the file {} after the first 8", size,
                       file.bytes() - 8));
  }
  std::string header(size, '\0');
  file.read_at(8, header.data(), size);
  return header;
}

// Refuses duplicate keys, which JSON parsers take silently, and nesting that only an attack has.
json parse_header(const std::string& path, const std::string& header) {
  if (!header.starts_with('{')) refuse(path, "header does not start with '{'");
  // The parser would take a zero byte for the end and believe what stands before it.
  if (header.find('\0') != header.npos) refuse(path, "header holds a zero byte");
  std::vector<std::set<std::string>> keys;  // of the objects being read, outermost first
  auto watch = [&](int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    bool opens = event == Event::object_start || event == Event::array_start;
    if (opens && depth > 2) refuse(path, "header is nested too deeply");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) refuse(path, "header has " + shown(key) + " twice");
    }
    return true;
  };
  try {
    return json::parse(header, watch);
  } catch (const json::parse_error& error) {
    refuse(path, fmt::format("header is not JSON in UTF-8, from its byte {}", error.byte));
  } catch (const json::out_of_range&) {
    refuse(path, "header has a number beyond any size");
  }
}

std::map<std::string, std::string> parse_metadata(const std::string& path, const json& value) {
  std::map<std::string, std::string> metadata;
  if (value.is_null()) return metadata;
  if (!value.is_object()) refuse(path, "__metadata__ is not an object of texts");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) refuse(path, "metadata " + shown(key) + " is not a text");
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// The bytes `shape` needs, or nothing where the product leaves 63 bits or ends within a byte.
std::optional<int64_t> bytes_of(const std::vector<int64_t>& shape, int bits) {
  int64_t product = 1;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(product, size, &product)) return {};
  }
  if (__builtin_mul_overflow(product, int64_t(bits), &product) || product % 8) return {};
  return product / 8;
}

SafetensorsFile::Entry parse_entry(const std::string& path, const std::string& name,
                                   const json& value) {
  auto bad = [&](const std::string& what) { refuse(path, "tensor " + shown(name) + ": " + what); };
  auto numbers = [&](const std::string& key) {
    std::vector<int64_t> list;
    if (!value[key].is_array()) bad(key + ": not a list");
    for (const json& number : value[key]) {
      std::optional<int64_t> found = whole_number(number);
      if (!found) bad(key + ": not a whole number from 0 to 2^63 - 1");
      list.push_back(*found);
    }
    return list;
  };
  if (!value.is_object() || value.size() != 3) bad("needs dtype, shape, data_offsets, no more");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(key)) bad(std::string("has no ") + key);
  }
  if (!value["dtype"].is_string()) bad("dtype: not a text");
  std::vector<int64_t> offsets = numbers("data_offsets");
  if (offsets.size() != 2) bad("data_offsets: not a pair");
  SafetensorsFile::Entry entry = {value["dtype"].get<std::string>(), numbers("shape"), offsets[0],
                                  offsets[1]};

  const Format* format = find_format(entry.dtype);
  if (!format) bad("unknown dtype " + shown(entry.dtype));
  if (entry.begin > entry.end) bad(fmt::format("begins at {}, ends at {}", entry.begin, entry.end));
  std::optional<int64_t> needed = bytes_of(entry.shape, format->bits);
  if (!needed) bad("its shape is too large, or no whole number of bytes");
  int64_t given = entry.end - entry.begin;
  if (*needed != given) {
    bad(fmt::format("its shape needs {} bytes, its offsets give {}", *needed, given));
  }
  return entry;
}

// The tensors cover the data from first to last byte, each byte once.
void check_layout(const std::string& path,
                  const std::map<std::string, SafetensorsFile::Entry>& entries,
                  int64_t data_bytes) {
  std::vector<std::tuple<int64_t, int64_t, std::string>> ranges;
  for (const auto& [name, entry] : entries) ranges.emplace_back(entry.begin, entry.end, name);
  std::sort(ranges.begin(), ranges.end());
  int64_t covered = 0;
  for (const auto& [begin, end, name] : ranges) {
    if (begin < covered) refuse(path, "tensor " + shown(name) + " overlaps the one before it");
    if (begin > covered) {
      refuse(path, fmt::format("hole: no tensor owns the {} bytes before {}", begin - covered,
                               shown(name)));
    }
    covered = end;
  }
  if (covered > data_bytes) {
    refuse(path, fmt::format("truncated: header says {} bytes of data, file has {}", covered,
                             data_bytes));
  }
  if (covered < data_bytes) {
    refuse(path, fmt::format("{} bytes after the last tensor", data_bytes - covered));
  }
}

// Does this key read "murmur.crc32c", or did before one byte of it was damaged?
bool is_seal_key(const std::string& key) {
  if (key.size() != kSealKey.size()) return false;
  int wrong = 0;
  for (size_t i = 0; i < key.size(); i++) wrong += key[i] != kSealKey[i];
  return wrong <= 1;
}

void verify_seal(const InputFile& file, std::string header,
                 const std::map<std::string, std::string>& metadata) {
  if (!header.starts_with(kSealed)) {
    for (const auto& [key, value] : metadata) {
      if (is_seal_key(key)) {
        refuse(file.path(), "header is damaged, or rewritten by another program",
               "use the original, or remove murmur.crc32c from its metadata");
      }
    }
    return;
  }
  std::string promised = header.substr(kSealed.size(), 8);
  header.replace(kSealed.size(), 8, kNoChecksum);
  uint64_t size = header.size();
  uint32_t crc = crc32c(header.data(), size, crc32c(&size, 8));
  std::vector<char> piece(kPiece);
  for (uint64_t at = 8 + size; at < file.bytes();) {
    size_t count = size_t(std::min<uint64_t>(kPiece, file.bytes() - at));
    file.read_at(at, piece.data(), count);
    crc = crc32c(piece.data(), count, crc);
    at += count;
  }
  if (checksum_text(crc) != promised) {
    refuse(file.path(), fmt::format("damaged: its checksum is {}, it should be {}",
                                    checksum_text(crc), shown(promised)));
  }
}

float from_half(uint16_t half) {
  uint32_t sign = uint32_t(half & 0x8000u) << 16;
  uint32_t exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 0) {  // subnormal: fraction * 2^-24, exact in a float
    float magnitude = float(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return bit_cast<float>(sign | wide << 23 | fraction << 13);
}

// Reads elements of type Stored, piece by piece, and keeps convert(element).
template <class Stored, class Kept, class Convert>
void read_converted(const InputFile& file, uint64_t offset, Tensor& to, Convert convert) {
  constexpr size_t kCount = kPiece / sizeof(Stored);
  size_t total = size_t(to.numel());
  std::vector<Stored> piece(std::min(total, kCount));
  Kept* y = to.data<Kept>();
  for (size_t done = 0; done < total; done += kCount) {
    size_t count = std::min(total - done, kCount);
    file.read_at(offset + done * sizeof(Stored), piece.data(), count * sizeof(Stored));
    std::transform(piece.begin(), piece.begin() + ptrdiff_t(count), y + done, convert);
  }
}

}  // namespace

std::string write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order = in_file_order(tensors);
  std::string header = header_of(order, metadata);
  uint64_t size = header.size();

  DurableFile file(path);
  uint32_t crc = 0;
  auto put = [&](const void* bytes, size_t count) {
    crc = crc32c(bytes, count, crc);
    file.write(bytes, count);
  };
  put(&size, 8);
  put(header.data(), size);
  for (const NamedTensor* named : order) {
    Tensor host = on_host(named->tensor);
    put(host.raw(), host.bytes());
  }
  std::string checksum = checksum_text(crc);
  file.overwrite(8 + kSealed.size(), checksum.data(), checksum.size());
  file.commit();
  return checksum;
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  auto file = std::make_shared<InputFile>(path);
  std::string header = read_header(*file);
  json root = parse_header(path, header);
  SafetensorsFile result;
  for (const auto& [name, value] : root.items()) {
    if (name == "__metadata__") {
      result.metadata_ = parse_metadata(path, value);
    } else {
      result.entries_.emplace(name, parse_entry(path, name, value));
    }
  }
  result.data_begin_ = 8 + header.size();
  check_layout(path, result.entries_, int64_t(file->bytes() - result.data_begin_));
  verify_seal(*file, std::move(header), result.metadata_);
  result.file_ = std::move(file);
  return result;
}

const std::string& SafetensorsFile::path() const { return file_->path(); }

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

std::string SafetensorsFile::checksum() const {
  auto found = metadata_.find(std::string(kSealKey));
  return found == metadata_.end() ? "" : found->second;
}

Tensor SafetensorsFile::read(const std::string& name) const {
  auto found = entries_.find(name);
  if (found == entries_.end()) {
    refuse(path(), "has no tensor " + shown(name), "check that the file belongs to this model");
  }
  const Entry& entry = found->second;
  auto unreadable = [&](const std::string& what, const char* remedy) {
    refuse(path(), "tensor " + shown(name) + " " + what, remedy);
  };
  const Format* format = find_format(entry.dtype);
  if (!format->kept) unreadable("is " + entry.dtype, "convert it to F32, BF16 or I32 first");
  if (entry.shape.size() > Shape::kMaxRank) {
    unreadable(fmt::format("has {} dimensions, Murmur reads up to 5", entry.shape.size()),
               "reshape it first");
  }
  Shape shape;
  for (int64_t size : entry.shape) shape.append(size);
  Tensor tensor(shape, *format->kept);
  uint64_t at = data_begin_ + uint64_t(entry.begin);
  if (stores(*format, *format->kept)) {
    file_->read_at(at, tensor.raw(), tensor.bytes());
  } else if (entry.dtype == "F16") {
    read_converted<uint16_t, float>(*file_, at, tensor, from_half);
  } else if (entry.dtype == "U16") {
    read_converted<uint16_t, int32_t>(*file_, at, tensor, [](uint16_t x) { return int32_t(x); });
  } else if (entry.dtype == "U8") {
    read_converted<uint8_t, int32_t>(*file_, at, tensor, [](uint8_t x) { return int32_t(x); });
  } else if (entry.dtype == "I64") {
    read_converted<int64_t, int32_t>(*file_, at, tensor, [&](int64_t x) {
      if (x != int32_t(x)) {
        unreadable(fmt::format("holds {}, beyond int32", x), "store smaller numbers");
      }
      return int32_t(x);
    });
  }
  return tensor;
}

}  // namespace murmur
