// tests/train/same_settings_test.cpp - ranks that were told different things do not train.
#include "train/same_settings.h"

#include "dist/transport.h"
#include "tests/train/run_command.h"
#include "train/prepare.h"

using namespace murmur;

namespace {

using Told = std::vector<Assignment>;

// What ranks with these settings are refused with; "" where they may train.
std::string refusal(const std::vector<Told>& ranks) {
  std::vector<std::string> said(ranks.size());
  run_ranks("threads", {int64_t(ranks.size()), 60, Device::cpu}, [&](Communicator& c) {
    said[size_t(c.rank())] =
        input_error_of([&] { require_same_settings(c, ranks[size_t(c.rank())]); });
  });
  for (const std::string& text : said) CHECK(text == said[0]);
  return said[0];
}

}  // namespace

TEST_CASE("ranks that were told different things hear which, and who") {
  const Told usual = {{"seed", "1"}, {"lr", "0.1"}};
  CHECK(refusal({usual}) == "");
  CHECK(refusal({usual, usual, usual}) == "");
  CHECK(refusal({usual, {{"seed", "1"}, {"lr", "0.2"}}, usual}) ==
        "lr: '0.1' on ranks 0, 2, '0.2' on rank 1; all ranks of a run must be told the same");
  CHECK(refusal({usual, {{"seed", "2"}}}) ==
        "seed: '1' on rank 0, '2' on rank 1; all ranks of a run must be told the same (they differ "
        "also in lr)");
  CHECK(refusal({{{"seed", "1"}}, {{"seed", "1"}, {"strategy.rounds", "2"}}}) ==
        "strategy.rounds: '2' on rank 1; all ranks of a run must be told the same");
  std::vector<Told> many(9, usual);
  many[8][0].value = "";
  CHECK(refusal(many) ==
        "seed: '' on rank 8, '1' on ranks 0, 1, 2, 3, ..; all ranks of a run must "
        "be told the same");
}

TEST_CASE("ranks may have their own paths and threads, but not other tokens") {
  TemporaryFolder folder{quick_place()};
  auto prepared = [&](const std::string& name, const std::string& bytes) {
    put_bytes(folder / (name + ".txt"), bytes);
    prepare_data({folder / (name + ".txt")}, "byte", folder / name, 0.1);
    return folder / name;
  };
  const std::string text = some_text(2000);
  const std::string a = prepared("a", text), b = prepared("b", text),
                    other = prepared("c", text.substr(1) + "x");
  auto rank = [&](std::vector<Assignment> settings, const std::string& data) {
    settings.push_back({"data", data});
    return shared_settings(make_config(settings), Dataset(data), false, {});
  };
  CHECK(refusal({rank({}, a), rank({{"threads", "3"}, {"out", "x"}, {"log_every", "7"}}, b)}) ==
        "");
  CHECK(contains(refusal({rank({}, a), rank({}, other)}), "data: '"));
  for (const Assignment& a_setting : std::vector<Assignment>{
           {"seed", "2"}, {"optimizer.lr", "0.5"}, {"auxiliary.beta1", "0.5"}, {"n_head", "2"}}) {
    CHECK(contains(refusal({rank({}, a), rank({a_setting}, a)}), a_setting.name + ": "));
  }
  CHECK(contains(refusal({shared_settings(make_config({}), Dataset(a), true, 3),
                          shared_settings(make_config({}), Dataset(a), true, 4)}),
                 "resume_from: '3' on rank 0, '4' on rank 1"));
}
