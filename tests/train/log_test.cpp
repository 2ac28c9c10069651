// tests/train/log_test.cpp - the log survives kills and resumes, bit for bit.
#include "train/log.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/train/temporary_folder.h"
#include "train/files.h"

using namespace murmur;

namespace {

LogRow row_at(int64_t step) {
  LogRow row{.step = step, .tokens = 768 * step, .train_loss = 10.0 / (step + 2), .lr = 3e-4};
  row.grad_norm = std::sqrt(2.0) / (step + 1);
  row.step_ms = 41.7;
  row.tokens_per_s = 18417.3;
  if (step % 2 == 0) {
    row.val_loss = row.train_loss + 1.0 / 3;
    row.bits_per_byte = *row.val_loss / std::log(2.0);
  }
  return row;
}

void write_rows(const std::string& path, int first, int last,
                std::optional<int64_t> resume_step = {}) {
  RunLog log(path, resume_step);
  for (int step = first; step <= last; step++) log.append(row_at(step));
}

std::vector<int64_t> steps_in(const std::string& path) {
  std::vector<int64_t> steps;
  for (const LogRow& row : read_log(path)) steps.push_back(row.step);
  return steps;
}

bool same_bits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

}  // namespace

TEST_CASE("rows come back as they were written") {
  TemporaryFolder folder;
  write_rows(folder / "log.jsonl", 1, 20);
  const std::vector<LogRow> rows = read_log(folder / "log.jsonl");
  REQUIRE(rows.size() == 20);
  for (const LogRow& row : rows) {
    const LogRow expected = row_at(row.step);
    CAPTURE(row.step);
    CHECK(row.tokens == expected.tokens);
    CHECK(same_bits(row.train_loss, expected.train_loss));
    CHECK(same_bits(row.lr, expected.lr));
    CHECK(same_bits(row.grad_norm, expected.grad_norm));
    CHECK(same_bits(row.step_ms, expected.step_ms));
    CHECK(same_bits(row.tokens_per_s, expected.tokens_per_s));
    CHECK(row.val_loss == expected.val_loss);
    CHECK(row.bits_per_byte == expected.bits_per_byte);
    CHECK(!row.consensus);
    CHECK(!row.nodes);
  }
}

TEST_CASE("a line is one JSON object with the promised keys") {
  LogRow row{.step = 3, .tokens = 2304, .train_loss = 2.5, .lr = 3e-4, .grad_norm = 1};
  row.step_ms = 41.25;
  row.tokens_per_s = 18000;
  const std::string always =
      R"({"step":3,"tokens":2304,"train_loss":2.5,"lr":0.0003,"grad_norm":1.0,)"
      R"("step_ms":41.25,"tokens_per_s":18000.0)";
  CHECK(log_line(row) == always + "}");
  row.val_loss = 2.75;
  row.bits_per_byte = 3.5;
  row.consensus = 0.125;
  row.nodes = 8;
  CHECK(log_line(row) ==
        always + R"(,"val_loss":2.75,"bits_per_byte":3.5,"consensus":0.125,"nodes":8})");
}

TEST_CASE("every bit of a loss survives") {
  TemporaryFolder folder;
  std::vector<double> losses = {
      0.1f, 1.0 / 3, 5e-324, 1.7e308, -0.0, 3, 1e17, 1e16, 123456789012345678.0};
  for (int i = 0; i < 1000; i++) losses.push_back(std::ldexp(std::sin(i + 0.5), i % 40 - 20));
  {
    RunLog log(folder / "log.jsonl");
    for (std::size_t i = 0; i < losses.size(); i++) {
      LogRow row = row_at(int64_t(i));
      row.train_loss = losses[i];
      log.append(row);
    }
  }
  const std::vector<LogRow> rows = read_log(folder / "log.jsonl");
  REQUIRE(rows.size() == losses.size());
  for (std::size_t i = 0; i < losses.size(); i++) {
    CAPTURE(i);
    CAPTURE(losses[i]);
    CHECK(same_bits(rows[i].train_loss, losses[i]));
  }
}

TEST_CASE("a loss that is not finite is null, and NaN when read") {
  TemporaryFolder folder;
  LogRow row = row_at(1);
  row.train_loss = std::numeric_limits<double>::quiet_NaN();
  row.grad_norm = std::numeric_limits<double>::infinity();
  row.val_loss = -std::numeric_limits<double>::infinity();
  CHECK(contains(log_line(row), "\"train_loss\":null"));
  RunLog(folder / "log.jsonl").append(row);
  const LogRow back = read_log(folder / "log.jsonl").at(0);
  CHECK(std::isnan(back.train_loss));
  CHECK(std::isnan(back.grad_norm));
  REQUIRE(back.val_loss);
  CHECK(std::isnan(*back.val_loss));
}

TEST_CASE("a row is in the file as soon as it is appended") {
  TemporaryFolder folder;
  RunLog log(folder / "log.jsonl");
  CHECK(steps_in(folder / "log.jsonl").empty());
  log.append(row_at(1));
  CHECK(steps_in(folder / "log.jsonl") == std::vector<int64_t>{1});
  log.append(row_at(2));
  CHECK(read_file(folder / "log.jsonl") == log_line(row_at(1)) + "\n" + log_line(row_at(2)) + "\n");
}

TEST_CASE("without resume the log starts anew") {
  TemporaryFolder folder;
  write_rows(folder / "log.jsonl", 1, 5);
  write_rows(folder / "log.jsonl", 1, 2);
  CHECK(steps_in(folder / "log.jsonl") == std::vector<int64_t>{1, 2});
}

TEST_CASE("a resumed log equals that of a run that was never interrupted") {
  TemporaryFolder folder;
  write_rows(folder / "whole.jsonl", 1, 12);
  const std::string whole = read_file(folder / "whole.jsonl");
  const std::string path = folder / "log.jsonl";
  write_rows(path, 1, 9);  // the checkpoint is from step 6
  const std::string killed = read_file(path);
  for (std::size_t torn = 0; torn < log_line(row_at(9)).size() + 1; torn++) {
    CAPTURE(torn);
    put_bytes(path, killed.substr(0, killed.size() - torn));
    write_rows(path, 7, 12, 6);
    REQUIRE(read_file(path) == whole);
  }
  // torn within the row of the checkpoint's own step: the row is lost, no other is
  put_bytes(path, killed.substr(0, killed.find("\"step\":6") + 20));
  write_rows(path, 7, 8, 6);
  CHECK(steps_in(path) == std::vector<int64_t>{1, 2, 3, 4, 5, 7, 8});
  // nothing is left beside the log
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
}

TEST_CASE("resume at the last step, before the first, and without a log") {
  TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  write_rows(path, 1, 3);
  write_rows(path, 4, 4, 3);
  CHECK(steps_in(path) == std::vector<int64_t>{1, 2, 3, 4});
  write_rows(path, 1, 1, 0);
  CHECK(steps_in(path) == std::vector<int64_t>{1});
  write_rows(folder / "new.jsonl", 5, 6, 4);
  CHECK(steps_in(folder / "new.jsonl") == std::vector<int64_t>{5, 6});
}

TEST_CASE("resume keeps the text of the rows it keeps, unknown keys too") {
  TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  std::string line = log_line(row_at(1));
  line.insert(1, "\"note\": \"by hand\", ");
  put_bytes(path, line + "\n" + log_line(row_at(2)));  // whole, but its line end is missing
  RunLog log(path, 2);
  CHECK(read_file(path) == line + "\n" + log_line(row_at(2)) + "\n");
}

TEST_CASE("a torn last line is overlooked, a bad line before whole ones is named") {
  TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  const std::string good = log_line(row_at(1)) + "\n";
  put_bytes(path, good + good.substr(0, 30));
  CHECK(read_log(path).size() == 1);
  put_bytes(path, good + std::string(8, '\0'));  // what a power cut may leave
  CHECK(read_log(path).size() == 1);
  put_bytes(path, "");
  CHECK(read_log(path).empty());

  struct Case {
    std::string line, complaint;
  };
  std::string no_tokens = good, half_step = good;
  no_tokens.replace(no_tokens.find("tokens"), 6, "nekots");
  half_step.replace(half_step.find("1,"), 1, "1.5");
  const std::vector<Case> cases = {
      {good.substr(0, 30) + "\n", "not a JSON object"},
      {"\n", "not a JSON object"},
      {"[1, 2]\n", "not a JSON object"},
      {no_tokens, "the key 'tokens' is missing"},
      {half_step, "'step' is no whole number"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.line);
    put_bytes(path, good + c.line + good);
    CHECK(says(input_error_of([&] { read_log(path); }), path + ":2:", c.complaint));
    CHECK(says(input_error_of([&] { RunLog log(path, 1); }), path + ":2:", c.complaint));
    CHECK(read_file(path) == good + c.line + good);  // left alone for the user to repair
  }
}

TEST_CASE("a damaged end of the log is cut behind the last whole line, and the log goes on") {
  TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  const std::string good = log_line(row_at(1)) + "\n", next = log_line(row_at(2)) + "\n";
  for (const std::string& damage :
       {std::string("{\"step\": 2}\n"), "step 2/9  loss 2.1\n{\n\n" + next.substr(0, 40),
        std::string(4096, '\0')}) {
    CAPTURE(damage);
    put_bytes(path, good + damage);
    CHECK(read_log(path).size() == 1);
    CHECK(read_file(path) == good + damage);  // reading changes nothing
    RunLog(path, 1).append(row_at(2));
    CHECK(read_file(path) == good + next);
  }
}

TEST_CASE("a log that cannot be opened is an error that names the path") {
  TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(RunLog(folder / "no/log.jsonl"),
                       doctest::Contains((folder / "no/log.jsonl").c_str()), Error);
  CHECK(contains(input_error_of([&] { read_log(folder / "none.jsonl"); }), folder / "none.jsonl"));
}

TEST_CASE("a log that has reached the limit on file sizes is an error that names the path") {
  TemporaryFolder folder;
  RunLog log(folder / "log.jsonl");
  const FileLimit limit(10);
  CHECK_THROWS_WITH_AS(log.append(row_at(1)), doctest::Contains((folder / "log.jsonl").c_str()),
                       Error);
}

TEST_CASE("the loss curve is drawn from any log, long, short or broken") {
  TemporaryFolder folder;
  const std::string path = folder / "loss.png";
  for (int count : {0, 1, 2, 49, 50, 500}) {
    CAPTURE(count);
    std::vector<LogRow> rows;
    for (int step = 1; step <= count; step++) rows.push_back(row_at(step));
    if (count > 10) rows[10].train_loss = std::numeric_limits<double>::quiet_NaN();
    plot_log(rows, path);
    CHECK(read_file(path).substr(1, 3) == "PNG");
    const std::string untitled = read_file(path);
    plot_log(rows, path, "another title");
    CHECK(read_file(path) != untitled);
  }
}
