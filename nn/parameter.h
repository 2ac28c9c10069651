// nn/parameter.h - all weights of a model in one flat buffer, in banks of one shape.
//
// Modules declare parameters (name, shape, role, initial values); allocate() then lays them out:
// parameters of one role and shape lie next to each other and form a bank, one [count, rows, cols]
// tensor. Gradients mirror the values. Checkpoints, optimizers and strategies see only this.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "autograd/var.h"

namespace murmur {

// What a weight is for. Optimizers are chosen by role (optim/router.h), never by counting
// dimensions.
enum class Role : uint8_t { matrix, embedding, head, vector };
constexpr Role kRoles[] = {Role::matrix, Role::embedding, Role::head, Role::vector};
const char* name_of(Role role);

// The random stream of what has this name, and of nothing else: its FNV-1a hash.
uint64_t stream_of(const std::string& name);

struct Parameter {
  std::string name;  // "h.3.attn.c_attn.weight"
  Shape shape;       // matrices are (out, in)
  Role role;
  double mean, deviation;  // of the normal distribution it starts from
  bool rounded;            // in bf16 runs the model computes with its bf16 shadow
  int64_t qkv_heads = 0;   // above 0: rows are queries, keys and values of so many heads, in order
  int unit = 0;            // a block's matrices: its number, from 1; everything else: 0
  int64_t first_row = 0, rows = 0;  // kept in the flat buffer: all of them, or a share
  int64_t offset = 0;               // of its first kept element in the flat buffer
  Var var;                // what the model computes with; its gradient gathers in the flat buffer
  Tensor largest_scores;  // (heads), when watched: of the passes since begin_gradients()
};

// Parameters of one role and shape, or rows of some of them. Vectors are matrices of one row.
struct Bank {
  std::string name;  // "matrix 384x128"
  Role role;
  int64_t count, rows, cols;
  Tensor value, gradient;  // (count, rows, cols), views of the flat buffers
  Tensor shadow;           // bf16 view, or empty
  std::vector<const Parameter*> members;
  int64_t first_row = 0;  // of every member, where these are not all of its rows
};

// Rows [row, row_end) of the members [member, member_end) of a bank.
struct Cut {
  int64_t member, member_end, row, row_end;
  int64_t members() const { return member_end - member; }
  int64_t rows() const { return row_end - row; }
};
// Where a bank begins in a flat buffer that is filled up to `size`.
int64_t bank_begin(int64_t size);
Bank cut(const Bank& whole, const Cut& cut);  // cuts what tensors it has; their rows must touch

// What a model tells of its progress, for those who fetch weights before they are used and send
// gradients off as soon as they are final (dist/). Unit 0 lasts from the first weight to the last.
struct UnitEvents {
  std::function<void(int unit, bool backward)> begins, ends;
};

class Parameters {
 public:
  // Declares one; the reference stays valid. Names are unique.
  // A vector is used in full precision unless it is `rounded`, as biases of products are.
  Parameter& add(std::string name, Shape shape, Role role, double deviation, double mean = 0,
                 bool rounded = false);

  // Lays everything out and fills it: a pure function of (seed, name). `activations` is the element
  // type the model computes in: bf16 adds a shadow, f64 makes everything fp64 (gradient checks).
  //
  // With `kept`, only that cut of every bank lies in the flat buffers, and the model computes with
  // the tensors of wholes(), whose memory comes and goes.
  void allocate(uint64_t seed, DType activations = DType::f32, Device device = Device::cpu,
                const std::function<Cut(const Bank&)>& kept = {});

  // What add() declares from now on are matrices of this unit, and others.
  void begin_unit(int unit) { unit_ = unit; }
  // The model calls these; `events` are told, also when backward comes back.
  void enter(int unit) const;
  void leave(int unit) const;
  UnitEvents events;

  const std::deque<Parameter>& all() const { return parameters_; }
  const Parameter& find(const std::string& name) const;
  std::vector<Bank>& banks() { return banks_; }
  const std::vector<Bank>& banks() const { return banks_; }              // as kept
  const std::vector<Bank>& whole_banks() const { return whole_banks_; }  // shapes and members only

  // One matrix of a block, or all of a bank of unit 0, in full.
  struct Whole {
    int unit;
    size_t bank;      // of banks()
    int64_t member;   // the first
    Tensor used;      // (members, rows, cols): fp32, or bf16 where the model computes with that
    Tensor gradient;  // of the same shape
    // Of vectors in a bf16 run: from `used`, into what the model computes with.
    std::vector<std::pair<Tensor, Tensor>> roundings;
  };
  const std::vector<Whole>& wholes() const { return wholes_; }  // empty where all is kept
  int64_t count() const;                                        // elements, without padding

  Tensor& values() { return values_; }
  const Tensor& values() const { return values_; }
  Tensor& gradients() { return gradients_; }
  Tensor value(const Parameter& p) const { return view_of(values_, p); }
  Tensor gradient(const Parameter& p) const { return view_of(gradients_, p); }
  Tensor shadow(const Parameter& p) const { return shadow_ ? view_of(shadow_, p) : Tensor(); }

  void begin_gradients();        // the next contribution to each gradient writes instead of adding
  void end_gradients();          // zeroes the gradients of parameters nothing reached
  void end_gradients(int unit);  // of one unit
  void refresh_shadow();         // bf16 <- fp32, after values changed
  void watch_scores();           // attention is to measure its largest scores from now on

 private:
  static Tensor view_of(const Tensor& flat, const Parameter& p) {
    Shape shape = p.shape;
    if (p.rows != p.shape.rows()) shape[0] = shape.rank() == 1 ? p.rows * shape[0] : p.rows;
    return flat.slice(p.offset, p.offset + shape.numel()).view(shape);
  }
  void add_wholes(size_t bank, const std::vector<Parameter*>& members);
  void fill(uint64_t seed);
  void end_gradient(const Parameter& p);

  std::deque<Parameter> parameters_;
  std::vector<Bank> banks_, whole_banks_;
  std::vector<Whole> wholes_;
  int unit_ = 0;
  Tensor values_, gradients_, shadow_;
};

}  // namespace murmur
