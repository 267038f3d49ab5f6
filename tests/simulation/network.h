// The network of a simulated run. Two kinds of traffic:
//
// - Datagrams (calls of the lease service and their replies): may be lost, late, or there twice.
// - Streams between nodes: in order, nothing is lost within one, as TCP has it. What cannot get through is sent
//   again until it can, so that a stream of an old tenure may still deliver late. A stream can break: then what is
//   under way is lost, and each end is told, or must find out by the silence.
//
// Links are cut in one direction at a time.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "tests/simulation/messages.h"
#include "tests/simulation/random.h"
#include "tests/simulation/scheduler.h"

namespace echofs::sim {

// Nodes are 0, 1, ...; the lease service has the number after the last one.
using Endpoint = int;

struct NetworkQuality {
  Moment delay_max = 2 * kMillisecond;
  Moment long_delay_max = 100 * kMillisecond;
  int long_delay_per_mille = 10;
  int loss_per_mille = 0;       // of datagrams
  int duplicate_per_mille = 0;  // of datagrams
  int break_per_mille = 0;      // of streams, for each message
};

class Network {
 public:
  struct Callbacks {
    std::function<void(Endpoint to, Endpoint from, StreamId, Message)> message;
    std::function<void(Endpoint to, StreamId)> broken;
  };
  // Owns neither; both outlive it.
  Network(Scheduler* scheduler, Random* random) : scheduler_(scheduler), random_(random) {}
  void SetCallbacks(Callbacks callbacks) { callbacks_ = std::move(callbacks); }

  NetworkQuality& quality() { return quality_; }
  void Cut(Endpoint from, Endpoint to, bool cut);
  bool IsCut(Endpoint from, Endpoint to) const { return cut_.count({from, to}) > 0; }
  void HealLinks() { cut_.clear(); }

  void SendDatagram(Endpoint from, Endpoint to, const std::function<void()>& deliver);
  StreamId NewStream() { return ++last_stream_; }
  void Send(StreamId stream, Endpoint from, Endpoint to, Message message);

 private:
  struct Direction {
    Endpoint to = 0;
    std::deque<std::pair<Moment, Message>> queue;  // with the moments of arrival
    bool pumping = false;
    bool broken = false;
  };
  using Key = std::pair<StreamId, Endpoint>;  // and who sends

  Moment Delay();
  void Pump(Key key);
  void Break(StreamId stream, Endpoint a, Endpoint b);

  Scheduler* const scheduler_;
  Random* const random_;
  Callbacks callbacks_;
  NetworkQuality quality_;
  std::set<std::pair<Endpoint, Endpoint>> cut_;
  StreamId last_stream_ = 0;
  std::map<Key, Direction> directions_;
};

}  // namespace echofs::sim
