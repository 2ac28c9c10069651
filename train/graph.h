// train/graph.h - `murmur graph`: a topology's matrix, what it is good for, and what it sends.
#pragma once

#include <string>
#include <vector>

#include "dist/topology_report.h"

namespace murmur {

struct GraphRequest {
  TopologyOptions topology;
  int64_t nodes = 8;
  std::string wire = "fp32", preset = "nano";  // of the traffic: how values travel, of which model
};

// What the busiest node sends in a step.
struct Sending {
  std::string what;
  double messages, bytes;
};

struct ExaminedGraph {
  GraphRequest request;
  Topology topology;
  TopologyReport report;
  int64_t parameters;
  std::vector<Sending> traffic;  // one mixing, gradient tracking, all-reduce, sharded
};
ExaminedGraph examine(const GraphRequest& request);  // InputError for what does not exist

std::vector<std::string> wire_names();  // "fp32", "bf16", "int8"

std::string graph_text(const ExaminedGraph& graph);

// `matrix`: W, row by row, w_ij what node i makes of what it hears from j; of a schedule the
// product over its period, and its rounds under `matrices`. `neighbours`: whom each node hears,
// over all rounds. `rounds`: the period. `messages`, `bytes`: of one mixing, sent by the busiest
// node.
std::string graph_json(const ExaminedGraph& graph);

// Nodes and edges on the left, averaging from random values on the right.
void draw_graph(const ExaminedGraph& graph, const std::string& path);

}  // namespace murmur
