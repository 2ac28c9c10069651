// tests/dist/bootstrap_test.cpp - whose word a process takes for its rank.
#include "dist/bootstrap.h"

#include <doctest/doctest.h>

#include <map>
#include <vector>

#include "tensor/check.h"

using namespace murmur;

namespace {

using Variables = std::map<std::string, std::string>;

const Variables kTorchrun = {{"RANK", "5"},        {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},  {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "a"}, {"MASTER_PORT", "29400"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "2"},
                            {"OMPI_COMM_WORLD_SIZE", "6"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
const Variables kPmi = {
    {"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
const Variables kSlurm = {{"SLURM_STEP_ID", "0"},         {"SLURM_PROCID", "9"},
                          {"SLURM_NTASKS", "16"},         {"SLURM_LOCALID", "1"},
                          {"SLURM_NTASKS_PER_NODE", "8"}, {"SLURM_JOB_NODELIST", "node[03-07,9]"}};

Launched read(const Variables& variables) {
  return launched_by([&](const char* name) -> const char* {
    auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

Variables with(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) variables[name] = value;
  return variables;
}

std::string complaint(const Variables& variables) {
  try {
    read(variables);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

void check_place(const Launched& l, const std::string& source, int rank, int size, int local_rank,
                 int local_size) {
  CHECK(l.found);
  CHECK(l.source == source);
  CHECK(l.rank == rank);
  CHECK(l.size == size);
  CHECK(l.local_rank == local_rank);
  CHECK(l.local_size == local_size);
}

}  // namespace

TEST_CASE("bootstrap: a process started by hand is one of one") {
  Launched l = read({});
  CHECK(!l.found);
  CHECK(l.rank == 0);
  CHECK(l.size == 1);
  CHECK(l.local_size == 1);
}

TEST_CASE("bootstrap: every contract is understood") {
  Launched l = read(kTorchrun);
  check_place(l, "torchrun", 5, 8, 1, 4);
  CHECK(l.address == "a");
  CHECK(l.port == 29400);
  CHECK(read(without(kTorchrun, "MASTER_PORT")).port == 29500);

  l = read(kOpenMpi);
  check_place(l, "Open MPI", 2, 6, 0, 2);
  CHECK(l.address == "");
  CHECK(read(with(kOpenMpi, {{"MASTER_ADDR", "b"}})).address == "b");

  check_place(read(kPmi), "PMI", 3, 4, 1, 2);
  l = read({{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}});
  check_place(l, "PMI", 3, 4, 3, 4);
  CHECK(l.address == "127.0.0.1");  // all on one host

  l = read(kSlurm);
  check_place(l, "Slurm", 9, 16, 1, 8);
  CHECK(l.address == "node03");
  Variables even = with(without(kSlurm, "SLURM_NTASKS_PER_NODE"), {{"SLURM_STEP_NUM_NODES", "5"}});
  check_place(read(even), "Slurm", 9, 16, 1, 4);
}

TEST_CASE("bootstrap: the first contract counts") {
  Variables all = kSlurm;
  CHECK(read(all).source == "Slurm");
  CHECK(read(all = with(all, kPmi)).source == "PMI");
  CHECK(read(all = with(all, kOpenMpi)).source == "Open MPI");
  CHECK(read(all = with(all, kTorchrun)).source == "torchrun");
}

TEST_CASE("bootstrap: a batch script of Slurm is no step of it") {
  CHECK(!read(without(kSlurm, "SLURM_STEP_ID")).found);
}

TEST_CASE("bootstrap: half a contract names what is missing") {
  auto names_missing = [](const Variables& contract, const std::vector<std::string>& needed) {
    for (const std::string& name : needed) {
      std::string text = complaint(without(contract, name));
      INFO(name, " missing: ", text);
      CHECK(text.rfind(name + ": is not set", 0) == 0);
      CHECK(text.find("unset") != text.npos);
    }
  };
  names_missing(kTorchrun, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"});
  names_missing(kOpenMpi, {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                           "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"});
  names_missing(kPmi, {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
  names_missing(kSlurm, {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST"});
}

TEST_CASE("bootstrap: what is no number is named") {
  for (const char* bad : {"", "two", "3x", "-1", " 1", "99999999999"}) {
    CHECK(complaint(with(kTorchrun, {{"WORLD_SIZE", bad}}))
              .rfind("WORLD_SIZE: '" + std::string(bad) + "' is not a number", 0) == 0);
    CHECK(complaint(with(kSlurm, {{"SLURM_LOCALID", bad}})).rfind("SLURM_LOCALID: ", 0) == 0);
  }
  CHECK(complaint(with(kTorchrun, {{"MASTER_PORT", "http"}})).rfind("MASTER_PORT: 'http'", 0) == 0);
  CHECK(complaint(with(kPmi, {{"PMI_RANK", "4"}})) ==
        "PMI_RANK: 4 is not below PMI_SIZE=4; ranks count from 0");
}

TEST_CASE("bootstrap: the first host of a node list") {
  CHECK(first_host("node7") == "node7");
  CHECK(first_host("node7,node8") == "node7");
  CHECK(first_host("node[03-07,9]") == "node03");
  CHECK(first_host("node[12,14-16],other") == "node12");
  CHECK(first_host("rack[2-3]n[04-05].cluster,x") == "rack2n04.cluster");
  CHECK(first_host("a-b[001]") == "a-b001");
  CHECK(first_host("") == "");
  CHECK_THROWS_AS(first_host("node[03-07"), InputError);
}
