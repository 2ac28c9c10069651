// tests/train/graph_test.cpp - murmur graph from outside: the numbers it prints, the picture it
// draws, and what it refuses.
#include "train/graph.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/train/run_command.h"
#include "train/files.h"

using namespace murmur;
using nlohmann::json;

namespace {

json graph(const Words& more) { return json::parse(output_of(Words{"graph", "--json"} + more)); }

bool near(double a, double b, double bound = 1e-9) { return std::abs(a - b) <= bound; }

int png_number(const std::string& bytes, size_t at) {
  int value = 0;
  for (size_t i = at; i < at + 4; i++) value = value << 8 | (unsigned char)bytes[i];
  return value;
}

}  // namespace

TEST_CASE("graph --json: the matrix, its checks, whom each node hears, what is sent") {
  json ring = graph({"--topology", "ring", "--nodes", "8"});
  REQUIRE(ring["matrix"].size() == 8);
  for (const json& row : ring["matrix"]) {
    double sum = 0;
    for (const json& w : row) sum += w.get<double>();
    CHECK(row.size() == 8);
    CHECK(near(sum, 1, 1e-15));
  }
  CHECK(near(ring["matrix"][0][7], 1. / 3));
  CHECK(near(ring["rho"], .804737854124));
  CHECK(near(ring["gap"], 1 - .804737854124));
  CHECK(ring["doubly_stochastic"] == true);
  CHECK(ring["connected"] == true);
  CHECK(ring["rounds"] == 1);
  CHECK(!ring.contains("matrices"));
  CHECK(ring["neighbours"][0] == json({1, 7}));
  CHECK(near(ring["smallest_eigenvalue"], -1. / 3));
  CHECK(ring["rounds_to"]["1e-6"] == 64);
  CHECK(ring["chebyshev_rounds_to"]["1e-6"] == 22);
  double parameters = ring["parameters"];
  CHECK(parameters > 8e5);
  CHECK(ring["messages"] == 2);
  CHECK(ring["bytes"] == 2 * 4 * parameters);
  CHECK(ring["traffic"][1]["bytes"] == 16 * parameters);             // y and x
  CHECK(near(ring["traffic"][2]["bytes"], 7 * parameters, 1e-3));    // 2 x 7/8 x 4
  CHECK(near(ring["traffic"][3]["bytes"], 3.5 * parameters, 1e-3));  // 2 x 7/8 x 2
}

TEST_CASE("graph --json: schedules have a matrix a round and their product") {
  json base2 = graph({"--topology", "base2", "--nodes", "3", "--wire", "bf16"});
  CHECK(base2["rounds"] == 3);
  CHECK(base2["matrices"].size() == 3);
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) CHECK(near(base2["matrix"][i][j], 1. / 3, 1e-15));
  }
  CHECK(base2["exact"] == true);
  CHECK(near(base2["rho"], 0, 1e-14));
  CHECK(base2["rounds_to"]["1e-3"] == 3);
  CHECK(base2["smallest_eigenvalue"].is_null());
  CHECK(base2["neighbours"] == json::parse("[[1,2],[0],[0]]"));
  CHECK(base2["messages"] == 1);  // node 0 meets somebody every round
  CHECK(base2["bytes"] == 2 * base2["parameters"].get<double>());
}

TEST_CASE("graph: every topology of the list, and one node") {
  for (const TopologyEntry& entry : topology_list()) {
    if (entry.name == "edges") continue;
    CAPTURE(entry.name);
    json eight = graph({"--topology", entry.name, "--nodes", "8"});
    CHECK(eight["doubly_stochastic"] == true);
    CHECK(eight["connected"] == true);
    CHECK(eight["rho"] < 1);
    CHECK(eight["neighbours"].size() == 8);
    json one = graph({"--topology", entry.name, "--nodes", "1"});
    CHECK(one["matrix"] == json::parse("[[1.0]]"));
    CHECK(one["bytes"] == 0);
  }
}

TEST_CASE("graph: settings and files reach the matrix") {
  TemporaryFolder folder;
  put_bytes(folder / "graph.txt", "directed\n0 1\n0 2\n1 2\n2 0\n");
  json push = graph({"--topology", "edges", "--edges", folder / "graph.txt", "--nodes", "3",
                     "--weights", "column"});
  CHECK(near(push["matrix"][1][0], 1. / 3));
  CHECK(push["matrix"][0][1] == 0);
  CHECK(push["column_stochastic"] == true);
  CHECK(push["doubly_stochastic"] == false);
  CHECK(near(push["rho"], .288675, 1e-6));
  CHECK(graph({"--lazy-weights"})["smallest_eigenvalue"] > 0.3);
  Words random = {"--topology", "erdos_renyi", "--nodes", "16"};
  CHECK(graph(random) == graph(random + Words{"--graph-seed", "1"}));
  CHECK(graph(random) != graph(random + Words{"--graph-seed", "2"}));
  CHECK(graph(random + Words{"--edge-probability", "1"})["rho"] < 1e-14);
  CHECK(near(graph({"--wire", "int8"})["bytes"].get<double>() /
                 graph({"--wire", "fp32"})["bytes"].get<double>(),
             1.03125 / 4));
  CHECK(graph({"--preset", "gpt2"})["parameters"] > 1.2e8);
}

TEST_CASE("graph in words says the same, and what it costs") {
  std::string ring = output_of({"graph"});
  for (const char* part : {"ring, 8 nodes", " 0.333 0.333     .", "0.8047378541, 0.1952621459",
                           "64; 22 with Chebyshev", "--lazy-weights", "one mixing, fp32",
                           "sharded update, bf16", "Gossip is not cheaper"}) {
    CAPTURE(part);
    CHECK(contains(ring, part));
  }
  CHECK(contains(output_of({"graph", "--topology", "base2", "--nodes", "9"}), "7, exactly"));
  CHECK(contains(output_of({"graph", "--topology", "torus", "--nodes", "12"}), "(3 x 4)"));
  CHECK(contains(output_of({"graph", "--nodes", "100"}), "92 rows and columns more"));
}

TEST_CASE("graph --out: a picture, of small graphs and large ones") {
  TemporaryFolder folder;
  std::vector<Words> graphs = {{"--topology", "ring"},
                               {"--topology", "exponential", "--nodes", "6"},
                               {"--topology", "torus", "--nodes", "12"},
                               {"--topology", "base2", "--nodes", "7"},
                               {"--topology", "complete", "--nodes", "80"},
                               {"--topology", "star", "--weights", "column"},
                               {"--nodes", "2"},
                               {"--nodes", "1"}};
  std::string before;
  for (const Words& words : graphs) {
    CAPTURE(joined(words));
    CHECK(output_of(Words{"graph", "--out", folder / "graph.png"} + words) ==
          output_of(Words{"graph"} + words));
    std::string bytes = read_file(folder / "graph.png");
    REQUIRE(bytes.size() > 5000);
    CHECK(bytes.starts_with("\x89PNG\r\n\x1a\n"));
    CHECK(png_number(bytes, 16) == 1600);
    CHECK(png_number(bytes, 20) == 750);
    CHECK(bytes != before);
    before = bytes;
  }
}

TEST_CASE("graph refuses what is wrong in one line") {
  TemporaryFolder folder;
  put_bytes(folder / "bad.txt", "0 1\n1 nine\n");
  check_refused({"graph", "--topology", "rnig"}, {"topology", "'rnig'", "did you mean 'ring'?"});
  check_refused({"graph", "--weights", "metropolitan"}, {"weights", "'metropolis'?"});
  check_refused({"graph", "--topology", "hypercube", "--nodes", "7"}, {"power of two", "torus"});
  check_refused({"graph", "--nodes", "0"}, {"--nodes", "'0'"});
  check_refused({"graph", "--nodse", "8"}, {"--nodse", "--nodes?"});
  check_refused({"graph", "--wire", "fp3"}, {"wire", "'fp32'?"});
  check_refused({"graph", "--preset", "nono"}, {"preset", "'nano'?"});
  check_refused({"graph", "--topology", "edges"}, {"--edges"});
  check_refused({"graph", "--topology", "edges", "--edges", folder / "bad.txt"},
                {"bad.txt:2", "'nine'"});
  check_refused({"graph", "--edge-probability", "2"}, {"edge_probability", "from 0 to 1"});
  check_refused({"graph", "--out", folder / "no/such/place.png"}, {"place.png"});
}
