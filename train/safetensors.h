// train/safetensors.h - named tensors in one file, in the format of Hugging Face's safetensors.
//
//   u64 N | N bytes of JSON, padded with spaces to 8 | the tensors' bytes, C order, little-endian
//   {"__metadata__": {text: text}, "name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}
// A file that Murmur wrote is sealed: `__metadata__` begins with "murmur.crc32c", the CRC-32C of
// the whole file with those eight digits read as 00000000. One flipped bit anywhere is an
// InputError.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

class InputFile;

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Writes F32, F64, BF16, I32, durably (train/files.h), and returns the file's checksum. Metadata
// always holds {"format": "pt"}, without which other readers refuse the file. Tensors are ordered
// by alignment, largest first, then by name.
std::string write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata = {});

// Everything a file says about itself is checked on opening, before anything is believed; what is
// wrong is an InputError of one line. The file stays open; copies share it.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const;
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const { return entries_.count(name) > 0; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::string checksum() const;  // verified; empty when another program wrote the file

  // F32, F64, BF16, I32 as they are; F16 as fp32; I64, U16, U8 as int32. Others are refused by
  // name.
  Tensor read(const std::string& name) const;

  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    int64_t begin, end;  // in the data, which starts at data_begin_ in the file
  };

 private:
  SafetensorsFile() = default;

  std::shared_ptr<const InputFile> file_;
  uint64_t data_begin_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace murmur
