// tests/optim/update_test.cpp - what is shared by all optimizers: scales, schedules, routing,
// settings, clipping.
#include "optim/scale.h"
#include "optim/schedule.h"
#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

TEST_CASE("shape scales are their closed forms") {
  const struct {
    const char* name;
    int64_t m, n;
    double expected;
  } cases[] = {{"none", 8, 2, 1},
               {"none", 2, 8, 1},
               {"original", 8, 2, 2},
               {"original", 2, 8, 1},
               {"original", 5, 5, 1},
               {"spectral", 8, 2, 2},
               {"spectral", 2, 8, 0.5},
               {"match_rms_adamw", 100, 4, 2},
               {"match_rms_adamw", 4, 100, 2}};
  for (const auto& c : cases) {
    CAPTURE(c.name);
    CHECK(shape_scale(c.name, c.m, c.n) == doctest::Approx(c.expected).epsilon(1e-14));
  }
  CHECK(contains(input_error_of([] { shape_scale("origina", 1, 1); }), "'origina'"));
  // Whatever is listed lengthens Muon's direction by just that factor.
  for (const ShapeScale& scale : shape_scales()) {
    CAPTURE(scale.name);
    auto moved = [](const std::string& name) {
      Training t({{"w", {9, 4}}}, configured("muon", {{"scale", name}}), 0, DType::f64);
      std::vector<double> before = to_vector(t.parameters.values());
      t.steps(1, 1);
      return before[0] - to_vector(t.parameters.values())[0];
    };
    CHECK(moved(scale.name) == doctest::Approx(scale.factor(9, 4) * moved("none")).epsilon(1e-9));
  }
}

// ---------------------------------------------------------------------------------- schedules

TEST_CASE("every schedule warms up in a line, peaks at one, and ends where it should") {
  for (const ScheduleEntry& entry : schedule_list()) {
    CAPTURE(entry.name);
    Schedule s{entry.name, 100, 10, 0.05, 0.4};
    for (int64_t step = 1; step <= 10; step++)
      CHECK(s.factor(step) == doctest::Approx(double(step) / 10).epsilon(1e-14));
    s.warmup = 0;
    CHECK(s.factor(1) == doctest::Approx(1).epsilon(1e-3));
  }
  CHECK(Schedule{"constant", 100, 10, 0.05, 0.4}.factor(100) == 1);
  CHECK(Schedule{"cosine", 100, 10, 0.05, 0.4}.factor(100) == doctest::Approx(0.05));
  CHECK(Schedule{"cosine", 100, 10, 0.05, 0.4}.factor(55) == doctest::Approx((1 + 0.05) / 2));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(60) == 1);
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(80) == doctest::Approx((1 + 0.05) / 2));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(100) == doctest::Approx(0.05));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0}.factor(100) == 1);  // no decay at all
  CHECK(Schedule{"wsd", 100, 0, 0, 1}.factor(25) == doctest::Approx(0.75));
  CHECK(Schedule{"inverse_sqrt", 100, 10}.factor(26) == doctest::Approx(0.25));
  CHECK(Schedule{"inverse", 100, 10}.factor(26) == doctest::Approx(1.0 / 16));
}

TEST_CASE("a schedule stays in [0, 1] and never jumps, whatever it is asked for") {
  for (const ScheduleEntry& entry : schedule_list()) {
    for (int64_t steps : {1, 2, 7, 100}) {
      for (int64_t warmup : {0, 1, 7, 99, 100, 101, 1000}) {
        for (double minimum : {0.0, 0.3, 1.0}) {
          for (double decay : {0.0, 0.01, 0.4, 1.0}) {
            Schedule s{entry.name, steps, warmup, minimum, decay};
            double before = s.factor(1);
            bool inside = true, continuous = true;
            // The steepest line: warm-up, or the decay over the steps that it has.
            double length = double(steps) - std::max(double(warmup), double(steps) * (1 - decay));
            if (entry.name == "cosine") length = double(steps - warmup) * 2 / M_PI;
            double slope =
                std::max(warmup ? 1 / double(warmup) : 0, length > 0 ? (1 - minimum) / length : 0);
            if (entry.name.starts_with("inverse")) slope = std::max(slope, 0.5);  // 1, then 1/2
            for (int64_t step = 1; step <= 2 * steps + 3; step++) {
              double factor = s.factor(step);
              inside = inside && factor >= 0 && factor <= 1;
              if (step <= steps)
                continuous = continuous && std::fabs(factor - before) <= slope + 1e-12;
              before = factor;
            }
            CAPTURE(entry.name);
            CAPTURE(steps);
            CAPTURE(warmup);
            CAPTURE(minimum);
            CAPTURE(decay);
            CHECK(inside);
            CHECK(continuous);
          }
        }
      }
    }
  }
}

TEST_CASE("a warm-up as long as the run never leaves its line") {
  for (const ScheduleEntry& entry : schedule_list()) {
    for (int64_t warmup : {50, 80}) {
      Schedule s{entry.name, 50, warmup, 0.1, 0.5};
      for (int64_t step = 1; step <= 50; step++)
        CHECK(s.factor(step) == doctest::Approx(double(step) / double(warmup)).epsilon(1e-14));
    }
  }
  std::string message = input_error_of([] { Schedule{"cosin", 10}.factor(5); });
  CHECK(contains(message, "'cosin'"));
  CHECK(contains(message, "'cosine'"));
}

// ------------------------------------------------------------------------------------ routing

TEST_CASE(
    "a parameter without an optimizer, or with two, or with one it does not suit, is refused") {
  Parameters p;
  p.add("h.0.weight", {4, 4}, Role::matrix, 1);
  p.add("wte.weight", {9, 4}, Role::embedding, 1);
  p.add("h.0.bias", {4}, Role::vector, 1);
  p.allocate(1);
  NamedOptimizer adamw = configured("adamw"), muon = configured("muon");
  auto refused = [&](const std::vector<Route>& routes) {
    std::string message = input_error_of([&] { assign_routes(routes, p.banks()); });
    CHECK(input_error_of([&] { Update update(p, routes, 1); }) == message);
    CHECK(!contains(message, "\n"));
    return message;
  };
  std::string nobody = refused({{Role::matrix, muon}, {Role::vector, adamw}});
  CHECK(contains(nobody, "'wte.weight'"));
  CHECK(contains(nobody, "no optimizer"));
  std::string both = refused({{Role::matrix, muon},
                              {Role::embedding, adamw},
                              {Role::vector, adamw},
                              {Role::matrix, adamw}});
  CHECK(contains(both, "'h.0.weight'"));
  CHECK(contains(both, "muon, adamw"));
  std::string unsuited =
      refused({{Role::matrix, muon}, {Role::embedding, muon}, {Role::vector, muon}});
  CHECK(contains(unsuited, "'h.0.bias'"));
  CHECK(contains(unsuited, "matrices only"));
  std::vector<Route> again = default_routes(adamw, adamw);
  again.push_back({Role::vector, muon});
  CHECK(contains(refused(again), "'h.0.bias'"));
}

TEST_CASE(
    "default routes: matrices to the main optimizer, the rest where it can go, vectors without "
    "decay") {
  Parameters p;
  p.add("m", {4, 4}, Role::matrix, 1);
  p.add("e", {9, 4}, Role::embedding, 1);
  p.add("h", {9, 5}, Role::head, 1);
  p.add("v", {4}, Role::vector, 1);
  p.allocate(1);
  NamedOptimizer adamw = configured("adamw"), muon = configured("muon"), sgd = configured("sgd");
  auto users = [&](const std::vector<Route>& routes) {
    std::string all;
    for (const Route* route : assign_routes(routes, p.banks()))
      all += route->use.name + (route->decay ? " " : "* ");
    return all;
  };
  CHECK(users(default_routes(muon, adamw)) == "muon adamw adamw adamw* ");
  CHECK(users(default_routes(sgd, adamw)) == "sgd sgd sgd sgd* ");
  std::string table = routing_table(default_routes(muon, adamw), p.banks());
  for (const Bank& bank : p.banks()) CHECK(contains(table, bank.name));
}

TEST_CASE("make_optimizer names the nearest") {
  for_each_optimizer([](const std::string& name) {
    std::string message = input_error_of([&] { make_optimizer(name + "x"); });
    CHECK(contains(message, "'" + name + "x'"));
    CHECK(contains(message, "'" + name + "'?"));
  });
}

// ----------------------------------------------------------------------------------- settings

TEST_CASE("settings are refused by name, kind, range and choice, and then unchanged") {
  double rate = 0.5;
  int64_t count = 3;
  bool flag = false;
  std::string word = "red";
  std::vector<Option> options = {{"rate", &rate, "a number", 0, 1},
                                 {"count", &count, "a whole number", 1, 9},
                                 {"flag", &flag, "yes or no"},
                                 {"word", &word, "a colour", 0, 0, {"red", "blue"}}};
  auto refused = [&](const std::string& name, const std::string& text) {
    std::string message = input_error_of([&] { set_option(options, "o.", name, text); });
    CAPTURE(message);
    CHECK(contains(message, "o." + name));
    return message;
  };
  CHECK(contains(refused("rat", "1"), "'o.rate'"));
  CHECK(contains(refused("counts", "1"), "'o.count'"));
  for (const char* text : {"", "x", "0.5x", " 0.5", "0,5", "--1"})
    CHECK(contains(refused("rate", text), "a number"));
  for (const char* text : {"1.01", "-0.01", "nan", "inf", "1e300"})
    CHECK(contains(refused("rate", text), "from 0 to 1"));
  for (const char* text : {"", "x", "2.5", "1e1", "99999999999999999999"})
    CHECK(contains(refused("count", text), "a whole number"));
  for (const char* text : {"0", "10", "-3"}) CHECK(contains(refused("count", text), "from 1 to 9"));
  for (const char* text : {"", "yes", "1", "True"})
    CHECK(contains(refused("flag", text), "true or false"));
  CHECK(contains(refused("word", "green"), "red, blue"));
  CHECK(rate == 0.5);
  CHECK(count == 3);
  CHECK(!flag);
  CHECK(word == "red");
  set_option(options, "", "rate", "1");
  set_option(options, "", "count", "9");
  set_option(options, "", "flag", "true");
  set_option(options, "", "word", "blue");
  CHECK(rate == 1);
  CHECK(count == 9);
  CHECK(flag);
  CHECK(word == "blue");
}

TEST_CASE("every setting of every optimizer reads back from its own text, and is described") {
  for_each_optimizer([](const std::string& name) {
    auto optimizer = make_optimizer(name);
    for (const Option& option : all_options(*optimizer)) {
      CAPTURE(option.name);
      std::string text = option_text(option);
      set_option(all_options(*optimizer), "", option.name, text);
      CHECK(option_text(option) == text);
      CHECK(!option.summary.empty());
      CHECK(!option_kind(option).empty());
    }
    CHECK(all_options(*optimizer)[0].name == "lr");
    CHECK(all_options(*optimizer)[1].name == "weight_decay");
  });
}

// ----------------------------------------------------------------------------------- clipping

TEST_CASE("the norm is global, told before clipping, and scales only what is above the limit") {
  Threads one(1);
  auto moved = [](double clip, double size, double& norm) {
    Training t({{"a", {2, 2}}, {"b", {1, 3}}, {"c", {2, 2}}},
               configured("sgd", {{"lr", "1"}, {"momentum", "0"}}), clip, DType::f64);
    for (const auto& [name, value] : {std::pair("a", 3.0), {"b", 4.0}, {"c", 12.0}})
      t.parameters.gradient(t.parameters.find(name)).data<double>()[1] = size * value;
    std::vector<double> start = to_vector(t.parameters.values());
    t.update->step(1, 1);
    norm = std::sqrt(item(t.update->gradient_squares()));
    std::vector<double> steps;
    for (const char* name : {"a", "b", "c"}) {
      const Parameter& p = t.parameters.find(name);
      steps.push_back(start[size_t(p.offset) + 1] - t.parameters.value(p).data<double>()[1]);
    }
    return steps;
  };
  double norm = 0;
  for (double clip : {0.0, 14.0, 1e9}) {
    CAPTURE(clip);
    auto steps = moved(clip, 1, norm);
    CHECK(norm == doctest::Approx(13).epsilon(1e-12));
    CHECK(steps[0] == doctest::Approx(3).epsilon(1e-12));
    CHECK(steps[1] == doctest::Approx(4).epsilon(1e-12));
    CHECK(steps[2] == doctest::Approx(12).epsilon(1e-12));
  }
  for (double size : {1.0, 100.0}) {
    auto steps = moved(6.5, size, norm);
    CHECK(norm == doctest::Approx(13 * size).epsilon(1e-12));
    CHECK(steps[0] == doctest::Approx(1.5).epsilon(1e-6));
    CHECK(steps[1] == doctest::Approx(2).epsilon(1e-6));
    CHECK(steps[2] == doctest::Approx(6).epsilon(1e-6));
  }
}

// ---------------------------------------------------------------------- weights for evaluation

TEST_CASE("evaluation weights are there while they are asked for, and training never notices") {
  Threads one(1);
  for (const OptimizerEntry& entry : optimizer_list()) {
    CAPTURE(entry.name);
    for (DType dtype : {DType::f32, DType::bf16}) {
      Training watched(kMatrices, configured(entry.name), 1, dtype),
          alone(kMatrices, configured(entry.name), 1, dtype);
      for (int64_t step = 1; step <= 4; step++) {
        watched.steps(step, step);
        alone.steps(step, step);
        Bits before = bits_of(watched.parameters.values());
        bool moved = false;
        watched.update->with_evaluation_values([&] {
          moved = !(bits_of(watched.parameters.values()) == before);
          for (const Bank& bank : watched.parameters.banks()) {
            if (!bank.shadow) continue;
            Tensor rounded(bank.value.shape(), DType::bf16);
            ops::copy(bank.value, rounded);
            CHECK(bits_of(bank.shadow) == bits_of(rounded));
          }
        });
        if (!watched.update->averages()) CHECK(!moved);
        if (watched.update->averages() && step > 1) CHECK(moved);
        CHECK(bits_of(watched.parameters.values()) == before);
      }
      CHECK_THROWS_AS(watched.update->with_evaluation_values([] { throw Error("no"); }), Error);
      watched.steps(5, 6);
      alone.steps(5, 6);
      CHECK(bits_of(watched.parameters.values()) == bits_of(alone.parameters.values()));
    }
  }
}

TEST_CASE("forms set what belongs to them, and single settings win over them in any order") {
  auto text = [](const std::string& name, const Settings& settings, const std::string& option) {
    NamedOptimizer use = configured(name, settings);
    for (const Option& o : all_options(*use.optimizer)) {
      if (o.name == option) return option_text(o);
    }
    return std::string("?");
  };
  CHECK(text("muon", {}, "lr") == "0.02");
  CHECK(text("muon", {{"form", "torch"}}, "lr") == "0.001");
  CHECK(text("muon", {{"form", "torch"}}, "weight_decay") == "0.1");
  CHECK(text("muon", {{"form", "dion"}}, "scale") == "spectral");
  CHECK(text("muon", {{"ema", "false"}, {"form", "torch"}}, "ema") == "false");
  CHECK(text("muon", {{"form", "moonlight"}, {"scale", "none"}, {"lr", "0.5"}}, "lr") == "0.5");
  CHECK(text("normuon", {}, "form") == "paper");
  CHECK(text("normuon", {{"form", "shape"}}, "orthogonalizer") == "polar_express");
  CHECK(text("normuon", {{"form", "code"}, {"nesterov", "false"}}, "nesterov") == "false");
  CHECK(text("muonclip", {}, "scale") == "match_rms_adamw");
  CHECK(text("muonclip", {}, "qk_clip") == "100");
}
