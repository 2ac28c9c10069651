// tests/train/files_test.cpp - files are whole or absent, errors name the path, the checksum is
// CRC-32C.
#include "train/files.h"

#include <doctest/doctest.h>
#include <sys/stat.h>  // mkfifo

#include <array>
#include <filesystem>
#include <random>
#include <string>

#include "tests/train/temporary_folder.h"
#include "train/checksum.h"

using namespace murmur;

TEST_CASE("CRC-32C gives the published values") {
  // RFC 3720, B.4
  CHECK(crc32c("123456789", 9) == 0xe3069283);
  std::array<unsigned char, 32> bytes{};
  CHECK(crc32c(bytes.data(), 32) == 0x8a9136aa);
  bytes.fill(0xff);
  CHECK(crc32c(bytes.data(), 32) == 0x62a8ab43);
  for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
  CHECK(crc32c(bytes.data(), 32) == 0x46dd794e);
  CHECK(crc32c("", 0) == 0);
  CHECK(checksum_text(0x1f) == "0000001f");
}

TEST_CASE("CRC-32C of the pieces is CRC-32C of the whole, wherever it is cut and aligned") {
  std::mt19937 random(1);
  std::string bytes(100, '\0');
  for (char& byte : bytes) byte = char(random());
  auto bit_by_bit = [](const std::string& text) {
    uint32_t crc = 0xffffffff;
    for (char c : text) {
      crc ^= (unsigned char)c;
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
  };
  for (size_t begin = 0; begin < 9; begin++) {
    std::string part = bytes.substr(begin);
    for (size_t cut = 0; cut <= part.size(); cut++) {
      uint32_t first = crc32c(bytes.data() + begin, cut);
      CHECK(crc32c(bytes.data() + begin + cut, part.size() - cut, first) == bit_by_bit(part));
    }
  }
}

TEST_CASE("a file written durably reads back, and nothing else is left") {
  TemporaryFolder folder;
  std::string path = folder / "a.bin";
  std::string bytes("zero \0 and newline \n", 20);
  for (const std::string& text : {bytes, std::string(), std::string(300'000, 'x'), bytes}) {
    write_file_durably(path, text);
    CHECK(read_file(path) == text);
  }
  CHECK(!std::filesystem::exists(path + ".part"));
}

TEST_CASE("a file keeps its old content until commit, and without commit for good") {
  TemporaryFolder folder;
  std::string path = folder / "a.txt";
  write_file_durably(path, "old");
  {
    DurableFile file(path);
    file.write("new", 3);
    CHECK(read_file(path) == "old");
  }
  CHECK(read_file(path) == "old");
  CHECK(!std::filesystem::exists(path + ".part"));

  DurableFile file(path);
  file.write("0000 tail", 9);
  file.overwrite(0, "head", 4);
  file.write("!", 1);
  file.commit();
  CHECK(read_file(path) == "head tail!");
}

TEST_CASE("an interrupted write leaves no trace in the next one") {
  TemporaryFolder folder;
  put_bytes(folder / "a.txt.part", "half of something much longer");
  write_file_durably(folder / "a.txt", "whole");
  CHECK(read_file(folder / "a.txt") == "whole");
}

TEST_CASE("what the user can put right is an InputError with path, reason and remedy") {
  TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  std::string missing = folder / "nowhere/file";
  CHECK(says(input_error_of([&] { read_file(missing); }), missing,
             "No such file or directory; check"));
  CHECK(says(input_error_of([&] { InputFile file(missing); }), missing, "No such file"));
  CHECK(says(input_error_of([&] { write_file_durably(missing, "x"); }), missing, "No such file"));
  CHECK(says(input_error_of([&] { read_file(folder.path()); }), folder.path(), "Is a directory"));
  CHECK(says(input_error_of([&] { InputFile file(folder.path()); }), folder.path(),
             "Is a directory"));
  CHECK(says(input_error_of([&] { write_file_durably(folder.path(), "x"); }), folder.path(),
             "directory"));
  CHECK(!std::filesystem::exists(folder.path() + ".part"));
  CHECK(says(input_error_of([&] { make_directories(folder / "file/sub"); }), folder / "file",
             "Not a directory"));
  CHECK(says(input_error_of([&] { make_directories(folder / "file"); }), folder / "file",
             "Not a directory"));
  CHECK(says(input_error_of([&] { InputFile file("/dev/null"); }), "/dev/null",
             "not a regular file"));
}

TEST_CASE("a full disk is called a full disk, and the old file survives it") {
  if (!std::filesystem::exists("/dev/full")) return;
  TemporaryFolder folder;
  std::string path = folder / "a.txt";
  write_file_durably(path, "old");
  std::filesystem::create_symlink("/dev/full", path + ".part");
  std::string message;
  try {
    write_file_durably(path, "new");
  } catch (const InputError&) {
    FAIL("a full disk is not the user's input");
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(says(message, path, "disk full (No space left on device); free some space"));
  CHECK(read_file(path) == "old");
  CHECK(!std::filesystem::exists(path + ".part"));
}

TEST_CASE("an input file reads any place, and refuses to read beyond its end") {
  TemporaryFolder folder;
  std::string path = folder / "a.txt";
  put_bytes(path, "0123456789");
  InputFile file(path);
  CHECK(file.bytes() == 10);
  char three[4] = {};
  file.read_at(4, three, 3);
  CHECK(std::string(three) == "456");
  CHECK(says(input_error_of([&] { file.read_at(8, three, 3); }), path, "became shorter"));
  std::filesystem::remove(path);
  file.read_at(7, three, 3);
  CHECK(std::string(three) == "789");
}

TEST_CASE("only regular files of a bounded size are read: no pipe to wait for, no endless device") {
  TemporaryFolder folder;
  std::string pipe = folder / "pipe", loop = folder / "loop", text = folder / "a.txt";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  std::filesystem::create_symlink(loop, loop);
  put_bytes(text, "0123456789");
  for (const std::string& path : {pipe, std::string("/dev/zero")}) {
    CAPTURE(path);
    CHECK(says(input_error_of([&] { read_file(path); }), path, "not a regular file"));
    CHECK(path_exists(path));
  }
  CHECK(read_file(text, 10).size() == 10);
  CHECK(says(input_error_of([&] { read_file(text, 9); }), text, "has 10 bytes, at most 9"));
  std::filesystem::resize_file(text, uint64_t(1) << 40);  // takes no room on the disk
  CHECK(says(input_error_of([&] { read_file(text); }), text, "is it the right file"));
  CHECK(says(input_error_of([&] { read_file(loop); }), loop, "levels of symbolic links"));
  CHECK(says(input_error_of([&] { path_exists(loop); }), loop, "levels of symbolic links"));
  CHECK_FALSE(path_exists(text + "/below"));
}

TEST_CASE("a file is written in the place of a regular one or of nothing, never of a device") {
  TemporaryFolder folder;
  std::string pipe = folder / "pipe", link = folder / "link", text = folder / "a.txt";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(says(input_error_of([&] { write_file_durably(pipe, "x"); }), pipe, "not a regular file"));
  CHECK(std::filesystem::is_fifo(pipe));
  std::filesystem::create_symlink("/dev/null", link);
  CHECK(says(input_error_of([&] { write_file_durably(link, "x"); }), "/dev/null",
             "not a regular file"));
  put_bytes(text, "old");
  std::filesystem::remove(link);
  std::filesystem::create_symlink(text, link);
  write_file_durably(link, "new");  // a link goes on being one
  CHECK(std::filesystem::is_symlink(link));
  CHECK(read_file(text) == "new");
  REQUIRE(mkfifo((text + ".part").c_str(), 0600) == 0);  // nobody would ever read it
  CHECK(says(input_error_of([&] { write_file_durably(text, "x"); }), text + ".part", "create"));
}

TEST_CASE("the limit on file sizes is named, and the old file survives it") {
  TemporaryFolder folder;
  std::string path = folder / "a.txt", message;
  write_file_durably(path, "old");
  {
    const FileLimit limit(100);
    try {
      write_file_durably(path, std::string(101, 'x'));
    } catch (const Error& error) {
      message = error.what();
    }
  }
  CHECK(says(message, path, "File too large; raise the limit on file sizes (ulimit -f)"));
  CHECK(read_file(path) == "old");
  CHECK(!path_exists(path + ".part"));
}

TEST_CASE("folders are made with their parents, and making them again is fine") {
  TemporaryFolder folder;
  for (const char* name : {"a/b/c", "a/b/c", "a/b/d/", "a"}) {
    make_directories(folder / name);
    CHECK(std::filesystem::is_directory(folder / name));
  }
}

TEST_CASE("a folder takes the place of another, or of nothing") {
  TemporaryFolder folder;
  make_directories(folder / "new");
  put_bytes(folder / "new/who", "new");
  replace_directory(folder / "new", folder / "here");
  CHECK(read_file(folder / "here/who") == "new");
  CHECK(!std::filesystem::exists(folder / "new"));

  make_directories(folder / "newer");
  put_bytes(folder / "newer/who", "newer");
  replace_directory(folder / "newer", folder / "here");
  CHECK(read_file(folder / "here/who") == "newer");
  CHECK(read_file(folder / "newer/who") == "new");  // the two changed places
  remove_tree(folder / "newer");
  remove_tree(folder / "newer");
  CHECK(!std::filesystem::exists(folder / "newer"));
}
