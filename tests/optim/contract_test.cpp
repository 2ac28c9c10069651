// tests/optim/contract_test.cpp - what every optimizer of the list promises, tried on each because
// it is listed.
#include <algorithm>
#include <set>

#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

namespace {

template <class Test>
void for_each_elementwise(Test test) {
  for_each_optimizer([&](const std::string& name) {
    if (make_optimizer(name)->elementwise()) test(name);
  });
}

Tensor normal(Shape shape, uint64_t stream, double deviation = 1) {
  Tensor x(shape, DType::f64);
  ops::random_normal(5, stream, 0, deviation, x);
  return x;
}

// c <- alpha op(a) op(b), all matrices (m, n).
Tensor product(const Tensor& a, bool ta, const Tensor& b, bool tb, double alpha = 1) {
  Tensor c({ta ? a.cols() : a.rows(), tb ? b.rows() : b.cols()}, DType::f64);
  ops::matmul(a, b, {c}, {.transpose_a = ta, .transpose_b = tb, .alpha = alpha});
  return c;
}

double half_square(const Tensor& x) {
  Tensor s({1}, DType::f64);
  ops::sum_of_squares(x, s);
  return item(s) / 2;
}

void subtract(const Tensor& b, Tensor& a) { ops::scale(-1, b, {a, true}); }

// A function to make small: value(parameters) also writes the gradients.
struct Problem {
  const char* name;
  std::vector<Declared> declared;
  double enough;  // of the value at the start
  std::function<double(const std::vector<Tensor>& w, const std::vector<Tensor>& g)> value;
};

std::vector<Problem> problems() {
  Tensor target = normal({6, 4}, 0, 0.25), inputs = normal({40, 6}, 1),
         outputs({40, 4}, DType::f64);
  for (int64_t i = 0; i < 40; i++) {  // directions of different length
    for (int64_t j = 0; j < 6; j++) inputs.data<double>()[i * 6 + j] *= 0.3 * double(j + 1);
  }
  ops::matmul(inputs, normal({4, 6}, 2), {outputs}, {.transpose_b = true});
  Tensor points = normal({60, 5}, 3),
         low = product(normal({6, 3}, 4), false, normal({3, 5}, 5), false);
  return {
      {"least squares, columns of different curvature",
       {{"w", {6, 4}}},
       1e-4,
       [=](const std::vector<Tensor>& w, const std::vector<Tensor>& g) {
         const double h[] = {0.5, 1, 1.5, 2};
         double sum = 0;
         for (int64_t i = 0; i < 24; i++) {
           double error = w[0].data<double>()[i] - target.data<double>()[i];
           g[0].data<double>()[i] = h[i % 4] * error;
           sum += 0.5 * h[i % 4] * error * error;
         }
         return sum;
       }},
      {"linear regression",
       {{"w", {4, 6}}},
       1e-2,
       [=](const std::vector<Tensor>& w, const std::vector<Tensor>& g) {
         Tensor error = product(inputs, false, w[0], true), to = g[0];
         subtract(outputs, error);
         ops::copy(product(error, true, inputs, false, 1.0 / 40), to);
         return half_square(error) / 40;
       }},
      {"classification by which input is largest",
       {{"w", {5, 5}}},
       0.3,
       [=](const std::vector<Tensor>& w, const std::vector<Tensor>& g) {
         Tensor scores = product(points, false, w[0], true), to = g[0];
         double sum = 0;
         for (int64_t i = 0; i < 60; i++) {
           double *row = scores.data<double>() + i * 5, total = 0;
           const double* x = points.data<double>() + i * 5;
           int64_t label = std::max_element(x, x + 5) - x;
           for (int64_t j = 0; j < 5; j++) total += std::exp(row[j]);
           sum += std::log(total) - row[label];
           for (int64_t j = 0; j < 5; j++)
             row[j] = (std::exp(row[j]) / total - double(j == label)) / 60;
         }
         ops::copy(product(scores, true, points, false), to);
         return sum / 60;
       }},
      {"a matrix as a product of two",
       {{"u", {6, 3}}, {"v", {3, 5}}},
       2e-2,
       [=](const std::vector<Tensor>& w, const std::vector<Tensor>& g) {
         Tensor error = product(w[0], false, w[1], false), du = g[0], dv = g[1];
         subtract(low, error);
         ops::copy(product(error, false, w[1], true), du);
         ops::copy(product(w[0], true, error, false), dv);
         return half_square(error);
       }},
  };
}

}  // namespace

TEST_CASE("every optimizer solves four small problems") {
  Threads one(1);
  const int64_t steps = 400;
  const std::vector<Problem> all = problems();
  for_each_optimizer([&](const std::string& name) {
    for (const Problem& problem : all) {
      CAPTURE(std::string(problem.name));
      double best = 1;
      for (double factor : {0.1, 1.0, 10.0, 100.0, 1000.0}) {  // defaults are for large models
        NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
        use.optimizer->learning_rate *= factor;
        Training t(problem.declared, use, 0, DType::f64);
        std::vector<Tensor> w, g;
        for (const Declared& d : problem.declared) {
          w.push_back(t.parameters.value(t.parameters.find(d.name)));
          g.push_back(t.parameters.gradient(t.parameters.find(d.name)));
        }
        double begin = problem.value(w, g), now = begin;
        for (int64_t step = 1; step <= steps && now < 1e3 * begin; step++) {  // else too fast
          t.update->step(step, 1 - double(step - 1) / double(steps));
          now = problem.value(w, g);
        }
        t.update->with_evaluation_values([&] { now = problem.value(w, g); });
        if (now == now) best = std::min(best, now / begin);
      }
      CHECK(best < problem.enough);
    }
  });
}

TEST_CASE("every elementwise optimizer follows Rosenbrock's valley") {
  Threads one(1);
  // f(x, y) = (1 - x)^2 + 100 (y - x^2)^2, from (-1.2, 1), where it is 24.2
  for_each_elementwise([&](const std::string& name) {
    double best = 24.2;
    for (double factor : {0.001, 0.01, 0.1, 1.0, 10.0, 100.0}) {
      NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
      use.optimizer->learning_rate *= factor;
      Training t({{"w", {2}, Role::vector}}, use, 10, DType::f64);
      double *w = t.parameters.values().data<double>(),
             *g = t.parameters.gradients().data<double>();
      w[0] = -1.2, w[1] = 1;
      const int64_t steps = 5000;
      for (int64_t step = 1; step <= steps && std::isfinite(w[0]); step++) {
        double x = w[0], y = w[1];
        g[0] = -2 * (1 - x) - 400 * x * (y - x * x);
        g[1] = 200 * (y - x * x);
        t.update->step(step, 1 - double(step - 1) / double(steps));
      }
      double f = std::pow(1 - w[0], 2) + 100 * std::pow(w[1] - w[0] * w[0], 2);
      if (std::isfinite(f)) best = std::min(best, f);
    }
    CHECK(best < 0.05);
  });
}

TEST_CASE("a matrix moves by the same bits on any number of threads, alone and in any bank") {
  struct Setting {
    int64_t count;
    std::vector<int> threads;
  };
  const std::vector<Setting> settings = {
      {1, {1, 1, 2, 3, 5, 8, 16}}, {2, {1, 3}}, {4, {1, 2, 5}}, {12, {3, 16}}};
  for_each_optimizer([&](const std::string& name) {
    bool orthogonalizes = false;
    for (const Option& option : make_optimizer(name)->options())
      orthogonalizes = orthogonalizes || option.name == "ns_dtype";
    // One of nano's, and one whose rows begin anywhere in a vector.
    for (Shape shape : {Shape{128, 512}, Shape{75, 37}}) {
      if (name == "soap" && shape[0] > 75) continue;  // bases of long sides take minutes
      for (DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(shape[0]);
        CAPTURE(std::string(name_of(dtype)));
        Settings options;
        if (orthogonalizes) options["ns_dtype"] = name_of(dtype);
        std::optional<std::pair<Bits, Bits>> first;
        for (const Setting& setting : settings) {
          std::vector<Declared> bank;
          for (int64_t k = setting.count; k-- > 0;)
            bank.push_back({"w" + std::to_string(k), shape});
          for (int threads : setting.threads) {
            CAPTURE(setting.count);
            CAPTURE(threads);
            Threads some(threads);
            Training t(bank, configured(name, options), 0, dtype);
            REQUIRE(t.parameters.banks().size() == 1);
            t.steps(1, 2);
            std::pair<Bits, Bits> last{bits_of(t.parameters.value(t.parameters.find("w0"))), {}};
            for (const auto& state : t.update->named_state()) {
              if (state.name.starts_with("w0."))
                last.second.bytes += state.name + bits_of(state.tensor).bytes;
            }
            if (!first) first = last;
            CHECK((last == *first));
          }
        }
      }
    }
  });
}

TEST_CASE("state that was taken out and put back goes on bit for bit") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    Training whole(kMatrices, configured(name), 1);
    whole.steps(1, 10);
    Training before(kMatrices, configured(name), 1), after(kMatrices, configured(name), 1);
    before.steps(1, 5);
    ops::copy(before.parameters.values(), after.parameters.values());
    auto from = before.update->named_state(), to = after.update->named_state();
    REQUIRE(from.size() == to.size());
    for (size_t i = 0; i < from.size(); i++) {
      CHECK(from[i].name == to[i].name);
      ops::copy(from[i].tensor, to[i].tensor);
    }
    after.steps(6, 10);
    CHECK(bits_of(after.parameters.values()) == bits_of(whole.parameters.values()));
    CHECK(state_of(*after.update) == state_of(*whole.update));
  });
}

TEST_CASE("a gradient is only read") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    for (double clip : {0.0, 1.0, 1e6}) {
      Training t(kMatrices, configured(name), clip);
      for (int64_t step = 1; step <= 3; step++) {
        t.random_gradients(step);
        Bits before = bits_of(t.parameters.gradients());
        t.update->step(step, 1);
        CHECK(bits_of(t.parameters.gradients()) == before);
      }
    }
  });
}

TEST_CASE(
    "a gradient of zero moves nothing, and what is remembered hardly moves more than at first") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
    Training t(kMatrices, use, 1);
    Bits start = bits_of(t.parameters.values());
    for (int64_t step = 1; step <= 5; step++) t.update->step(step, 1);
    CHECK(bits_of(t.parameters.values()) == start);

    t.steps(6, 10);
    CHECK(bits_of(t.parameters.values()) != start);
    t.zero_gradients();
    auto moved_by = [&](int64_t step) {
      std::vector<double> before = to_vector(t.parameters.values());
      t.update->step(step, 1);
      double sum = 0;
      std::vector<double> after = to_vector(t.parameters.values());
      for (size_t i = 0; i < after.size(); i++) sum += std::pow(after[i] - before[i], 2);
      return std::sqrt(sum);
    };
    double first = moved_by(11);
    double most = 0;
    for (int64_t step = 12; step <= 3001; step++) most = std::max(most, moved_by(step));
    CHECK(all_finite(t.parameters.values()));
    CHECK(most <= 1.25 * first + 1e-6 * use.optimizer->learning_rate);
  });
}

TEST_CASE("gradients of rank one, huge and tiny ones, leave finite weights behind") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    for (double size : {1.0, 1e15, 1e-30, 1e-40}) {
      CAPTURE(size);
      Training t(kMatrices, configured(name), size > 1 ? 0 : 1);
      for (int64_t step = 1; step <= 5; step++) {
        t.random_gradients(step, step == 3 ? size : 1);
        for (const Parameter& p : t.parameters.all()) {  // every row the first row's multiple
          float* g = t.parameters.gradient(p).data<float>();
          for (int64_t i = 1; i < p.shape.rows(); i++) {
            for (int64_t j = 0; j < p.shape.cols(); j++)
              g[i * p.shape.cols() + j] = float(i) * g[j];
          }
        }
        t.update->step(step, 1);
      }
      CHECK(all_finite(t.parameters.values()));
    }
  });
}

TEST_CASE("cautious decay leaves alone what the step shrinks already") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    // Without decay, with decay, with cautious decay; the same gradient at the same weights.
    std::vector<std::vector<double>> after;
    std::vector<double> before;
    for (const Settings& more : {Settings{{"weight_decay", "0"}},
                                 {{"weight_decay", "0.5"}},
                                 {{"weight_decay", "0.5"}, {"cautious_decay", "true"}}}) {
      Settings settings = more;
      settings["lr"] = "0.01";
      if (make_optimizer(name)->decays_itself()) {  // the setting is refused
        if (settings.count("cautious_decay"))
          CHECK_THROWS_AS(configured(name, settings), InputError);
        continue;
      }
      NamedOptimizer use = configured(name, settings);
      Training t(kMatrices, use);
      before = to_vector(t.parameters.values());
      t.steps(1, 1);
      after.push_back(to_vector(t.parameters.values()));
    }
    for (size_t i = 0; i < before.size() && after.size() == 3; i++) {
      bool shrinks = (before[i] - after[0][i]) * before[i] < 0;  // against the decay
      double expected = shrinks ? after[0][i] : after[1][i];
      CHECK(after[2][i] == doctest::Approx(expected).epsilon(1e-6));
    }
  });
}

TEST_CASE("decay shrinks by 1 - lr decay where the gradient is zero, and only where it is asked") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"lr", "0.25"}, {"weight_decay", "0.5"}});
    Training t({{"a", {3, 4}}, {"b", {5, 2}}}, use);
    std::vector<double> start = to_vector(t.parameters.values()), expected = start;
    for (double& v : expected) v *= 1 - 0.25 * 0.5 * 0.5;
    t.update->step(1, 0.5);
    if (!use.optimizer->decays_itself()) {
      CHECK(distance(t.parameters.values(), expected) < 1e-7);
    } else {  // in its own way, but no faster
      t.update->step(2, 0.5);
      std::vector<double> now = to_vector(t.parameters.values());
      for (size_t i = 0; i < now.size(); i++) {
        double share = start[i] == 0 ? 1 : now[i] / start[i];
        CHECK(share <= 1);
        CHECK(share >= std::pow(1 - 0.25 * 0.5 * 0.5, 2) - 1e-6);
        if (start[i] != 0) CHECK(share < 1);
      }
    }

    Update spared(t.parameters, {{Role::matrix, use, 2, false}}, 0);
    Bits before = bits_of(t.parameters.values());
    spared.step(1, 1);
    CHECK(bits_of(t.parameters.values()) == before);
  });
}

TEST_CASE("a gradient that is not finite is an error that names the parameter, and moves nothing") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    for (double bad : {NAN, INFINITY, -INFINITY}) {
      for (const Declared& where : kMatrices) {
        Training t(kMatrices, configured(name), 1);
        t.steps(1, 2);
        Bits values = bits_of(t.parameters.values()), state = state_of(*t.update);
        t.random_gradients(3);
        Tensor g = t.parameters.gradient(t.parameters.find(where.name));
        g.data<float>()[g.numel() - 1] = float(bad);
        std::string message;
        try {
          t.update->step(3, 1);
        } catch (const Error& error) {
          message = error.what();
        }
        CAPTURE(message);
        CHECK(contains(message, "'" + where.name + "'"));
        CHECK(contains(message, "step 3"));
        CHECK(bits_of(t.parameters.values()) == values);
        CHECK(state_of(*t.update) == state);
      }
    }
  });
}

TEST_CASE(
    "state is what was declared: names, shapes, bytes, zeros at the start or random numbers") {
  for_each_optimizer([&](const std::string& name) {
    for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      NamedOptimizer use = configured(name);
      Training t(kMatrices, use, 0, dtype);
      size_t bytes = 0, tensors = 0;
      std::set<std::string> random;
      for (const Bank& bank : t.parameters.banks()) {
        for (const StateShape& s : use.optimizer->state(bank)) {
          CHECK(s.shape[0] == bank.count);
          bytes += size_t(s.shape.numel()) * (dtype == DType::f64 ? 8 : 4);
          tensors += size_t(bank.count);
          if (s.deviation != 0) random.insert(s.name);
        }
      }
      CHECK(size_t(t.update->state_bytes()) == bytes);
      auto state = t.update->named_state();
      CHECK(state.size() == tensors);
      for (const auto& s : state) {
        bytes -= s.tensor.bytes();
        size_t dot = s.name.rfind('.');
        bool starts_random = random.count(s.name.substr(dot + 1)) > 0, zeros = true;
        for (double v : to_vector(s.tensor)) zeros = zeros && v == 0;
        CHECK(zeros == !starts_random);
      }
      CHECK(bytes == 0);
    }
  });
}

TEST_CASE("an elementwise optimizer says the same about slices as about the whole") {
  for_each_elementwise([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"weight_decay", "0.1"}});
    Training t({{"w", {300, 301}}}, use);  // nearly three slices
    Bank& bank = t.parameters.banks()[0];
    Tensor value(bank.value.shape()), direction(bank.value.shape());
    State state;
    for (const StateShape& s : use.optimizer->state(bank)) state[s.name] = Tensor::zeros(s.shape);
    ops::copy(bank.value, value);
    double lr = use.optimizer->learning_rate;
    for (int64_t step = 1; step <= 3; step++) {
      t.steps(step, step);
      Tensor number = Tensor::of({double(step)}, {1}, DType::f64), none;
      use.optimizer->direction({bank, bank.gradient, value, state, number, lr, 0.1}, direction);
      ops::apply_update(lr, 0.1, false, direction, value, none);
    }
    CHECK(bits_of(bank.value) == bits_of(value));
  });
}

TEST_CASE("the bf16 shadow follows every update") {
  for_each_optimizer([&](const std::string& name) {
    Training t(kMatrices, configured(name), 1, DType::bf16);
    t.steps(1, 2);
    for (const Bank& bank : t.parameters.banks()) {
      Tensor rounded(bank.value.shape(), DType::bf16);
      ops::copy(bank.value, rounded);
      CHECK(bits_of(bank.shadow) == bits_of(rounded));
    }
  });
}
