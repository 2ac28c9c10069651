// tests/optim/row_blocks_test.cpp - packed queries, keys and values, shown to an optimizer as
// several matrices, are to it what separate parameters are.
#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

namespace {

constexpr int64_t kHeads = 2, kWidth = 8;  // heads of 4

// A packed projection with its neighbours.
void declare_packed(Parameters& p) {
  p.add("before", {kWidth, kWidth}, Role::matrix, 0.5);
  for (const char* name : {"a.c_attn", "b.c_attn"})
    p.add(name, {3 * kWidth, kWidth}, Role::matrix, 0.5).qkv_heads = kHeads;
  p.add("plain", {3 * kWidth, kWidth}, Role::matrix, 0.5);  // of the same shape, but not packed
}

void copy_rows(const Tensor& from, int64_t begin, int64_t rows, Tensor to) {
  ops::copy(from.slice(begin, begin + rows), to);
}

}  // namespace

TEST_CASE("row blocks are separate parameters, to the bit") {
  Threads one(1);
  for (const OptimizerEntry& entry : optimizer_list()) {
    CAPTURE(entry.name);
    for (auto [choice, blocks] : {std::pair{"qkv", int64_t(3)}, {"head", 3 * kHeads}}) {
      CAPTURE(std::string(choice));
      int64_t rows = 3 * kWidth / blocks;
      NamedOptimizer use = configured(entry.name);
      bool random = false;  // a state that starts from numbers of its parameter's name
      Parameters packed, apart;
      declare_packed(packed);
      packed.allocate(3);
      for (const char* name : {"a.c_attn", "b.c_attn"}) {
        for (int64_t i = 0; i < blocks; i++)
          apart.add(name + std::to_string(i), {rows, kWidth}, Role::matrix, 0.5);
      }
      apart.allocate(3);
      for (const StateShape& s : use.optimizer->state(apart.banks()[0]))
        random = random || s.deviation != 0;
      if (random) continue;
      auto each_block = [&](auto f) {
        for (const char* name : {"a.c_attn", "b.c_attn"}) {
          for (int64_t i = 0; i < blocks; i++)
            f(packed.find(name), i * rows, apart.find(name + std::to_string(i)));
        }
      };
      each_block([&](const Parameter& whole, int64_t row, const Parameter& block) {
        copy_rows(packed.value(whole), row, rows, apart.value(block));
      });
      Update of_packed(packed, {{Role::matrix, use, 1, true, choice}}, 0);
      Update of_apart(apart, {{Role::matrix, use}}, 0);
      CHECK(of_packed.named_state().size() ==
            4 * use.optimizer->state(packed.banks()[0]).size());  // one per parameter all the same
      for (int64_t step = 1; step <= 3; step++) {
        Tensor& g = packed.gradients();
        ops::random_normal(uint64_t(step), 1, 0, 1, g);
        each_block([&](const Parameter& whole, int64_t row, const Parameter& block) {
          copy_rows(packed.gradient(whole), row, rows, apart.gradient(block));
        });
        of_packed.step(step, 1);
        of_apart.step(step, 1);
      }
      each_block([&](const Parameter& whole, int64_t row, const Parameter& block) {
        CHECK(bits_of(packed.value(whole).slice(row, row + rows)) == bits_of(apart.value(block)));
      });
    }
  }
}

TEST_CASE("only packed projections are cut; the routing table says how; whole is the default") {
  Parameters p;
  declare_packed(p);
  p.allocate(1);
  NamedOptimizer muon = configured("muon"), adamw = configured("adamw");
  for (const Bank& bank : p.banks()) {
    bool packed = bank.members[0]->qkv_heads > 0;
    CHECK(with_row_blocks(bank, "whole").count == bank.count);
    CHECK(with_row_blocks(bank, "qkv").count == bank.count * (packed ? 3 : 1));
    CHECK(with_row_blocks(bank, "head").rows == (packed ? kWidth / kHeads : bank.rows));
  }
  CHECK(contains(routing_table(default_routes(muon, adamw, "head"), p.banks()), "as 4x8"));
  CHECK(!contains(routing_table(default_routes(muon, adamw), p.banks()), " as "));
}
