// The limits of the network half of replication in one place: what may be in a message, in a queue,
// in flight, and how long things may take. Everything that comes from the wire is held against
// these before memory is allocated for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace echofs {

inline constexpr std::uint32_t kProtocolVersion = 1;

// Sizes in bytes.
inline constexpr std::size_t kMessageSizeMax = 4u << 20;        // of any gRPC message
inline constexpr std::size_t kRecordChunkSizeMax = 256u << 10;  // data of one RecordChunk
// Received on one stream and not yet read by us. gRPC would adapt it to the speed of the network, to tens of
// megabytes where the disk is the slower one.
inline constexpr int kStreamWindowSize = 4 << 20;
inline constexpr std::size_t kCopyRunSizeMax = 1u << 20;  // pages of one step of a first copy
inline constexpr std::uint64_t kUnacknowledgedSizeMax = 64u
                                                        << 20;  // records in flight to one replica
inline constexpr std::uint64_t kApplyQueueSizeMax = 32u
                                                    << 20;  // payloads waiting in memory, in total
inline constexpr std::uint64_t kQueuedPayloadSizeMax =
    4u << 20;  // a larger one stays in the log alone
inline constexpr std::size_t kQueuedEntryOverhead =
    512;  // counted for each entry beside its payload
inline constexpr std::size_t kImportChunkSizeMax = 256u << 10;  // data of one ImportDatabaseRequest
// Of SQLite's largest database: 2^32 - 2 pages of 64 KiB.
inline constexpr std::uint64_t kDatabaseSizeMax = std::uint64_t{0xfffffffe} << 16;
inline constexpr std::size_t kIdentitySizeMax = 256;             // node ids, addresses, versions
inline constexpr std::size_t kNodeStateSizeMax = 64u << 10;      // node.json
inline constexpr std::size_t kCredentialFileSizeMax = 1u << 20;  // certificates, keys, tokens
inline constexpr std::size_t kTokenSizeMin = 16;
inline constexpr std::size_t kTokenSizeMax = 256;

// Counts.
inline constexpr std::uint32_t kCopyRunPagesMax = 256;  // pages of one step of a first copy
inline constexpr int kCatalogChunkDatabasesMax = 1000;  // databases in one LogBase
inline constexpr std::size_t kCatalogDatabasesMax =
    1'000'000;                                          // databases in all LogBase of a stream
inline constexpr std::size_t kFetchRangesMax = 20'000;  // runs of pages in one request
inline constexpr std::uint32_t kMinSyncReplicasMax = 16;
inline constexpr std::size_t kFollowSessionsMax = 64;  // replicas at a primary
inline constexpr std::size_t kFetchSessionsMax = 64;   // first copies at a primary
inline constexpr std::size_t kFollowersRememberedMax =
    256;  // replicas in status, gone ones included
inline constexpr std::size_t kHeartbeatsRememberedMax = 1024;  // by a replica that is behind
inline constexpr std::size_t kLeaseNodesMax = 1000;            // announced to one cluster's lease
inline constexpr std::size_t kInSyncNodesMax = 1000;
inline constexpr std::size_t kLeaseClustersMax = 1000;  // at one lease server
inline constexpr int kLeaseWaitersMax = 1000;           // nodes that wait for a change there
inline constexpr std::size_t kLeaseEndpointsMax = 100;
inline constexpr std::size_t kTokensMax = 8;  // that are accepted at a time
inline constexpr std::size_t kLimitedLogKeysMax = 64;
inline constexpr int kServerThreadsMax =
    2000;  // of a gRPC server: calls at a time, most of them waiting
inline constexpr int kConnectionCallsMax = 100;  // at a time on one connection
// What a node may claim, so that there are terms left above it.
inline constexpr std::uint64_t kTermMax = std::uint64_t{1} << 62;
inline constexpr int kApplyWorkers = 2;
inline constexpr int kCopyWorkers = 2;
inline constexpr int kApplyBatchMax = 64;  // entries of one database before another gets its turn

// A rewind that would fetch more than this part of a database copies all of it.
inline constexpr std::uint64_t kRewindPartMax = 4;  // one in so many pages

// Times.
inline constexpr absl::Duration kHeartbeatInterval = absl::Seconds(1);
// A stream that says nothing for so long, heartbeats included, is dead.
inline constexpr absl::Duration kStreamSilenceMax = absl::Seconds(10);
// How often a thread that waits for the log looks whether it should end.
inline constexpr absl::Duration kStopCheckInterval = absl::Milliseconds(100);
inline constexpr absl::Duration kReconnectDelayMin = absl::Milliseconds(50);
inline constexpr absl::Duration kReconnectDelayMax = absl::Seconds(2);
// A primary that cannot be reached is worth a warning after so long.
inline constexpr absl::Duration kTroubleGrace = absl::Seconds(2);
// After a refusal that only a person can mend (another cluster, another protocol).
inline constexpr absl::Duration kRefusedDelay = absl::Seconds(10);
inline constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
// From a connection's begin to the end of its TLS handshake and its first HTTP/2 settings, at a server.
inline constexpr absl::Duration kHandshakeTimeout = absl::Seconds(10);
// From a call's begin to its Hello.
inline constexpr absl::Duration kHelloTimeout = absl::Seconds(10);
// Between two messages of an import, which keeps all others out meanwhile.
inline constexpr absl::Duration kImportSilenceMax = absl::Seconds(30);
// How often it is looked whether certificates or tokens have been replaced.
inline constexpr absl::Duration kCredentialLookInterval = absl::Seconds(1);
// How long before its end a certificate is warned of, and how often.
inline constexpr absl::Duration kCertificateExpiryNotice = absl::Hours(14 * 24);
inline constexpr absl::Duration kCertificateExpiryInterval = absl::Hours(12);
// Between two lines in the log about what any caller can cause.
inline constexpr absl::Duration kLimitedLogInterval = absl::Minutes(1);
inline constexpr absl::Duration kKeepaliveInterval = absl::Seconds(10);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(10);
// How old a replica's lag may be as the primary shows it.
inline constexpr absl::Duration kLagRemembered = absl::Milliseconds(100);
inline constexpr absl::Duration kFollowerRemembered = absl::Minutes(10);
inline constexpr absl::Duration kBlockedDelayMin = absl::Milliseconds(1);
inline constexpr absl::Duration kBlockedDelayMax = absl::Milliseconds(20);
// After an error of a database's files that is no damage (disk full, I/O).
inline constexpr absl::Duration kStoppedDelayMin = absl::Milliseconds(50);
inline constexpr absl::Duration kStoppedDelayMax = absl::Seconds(5);
inline constexpr absl::Duration kCopyRetryDelayMin = absl::Milliseconds(50);
inline constexpr absl::Duration kCopyRetryDelayMax = absl::Seconds(10);
// A source that cannot read pages for so long (one transaction in the way all the time) gives up.
inline constexpr absl::Duration kCopyUnavailableMax = absl::Seconds(60);
inline constexpr absl::Duration kCopyProgressInterval = absl::Seconds(5);
// Replication is asynchronous, so in a stream of commits messages and syncs are for several of them at once;
// after a rest the first one goes at once. Between two messages with records to one replica:
inline constexpr absl::Duration kSendInterval = absl::Microseconds(500);
// Between two syncs of a replica's log:
inline constexpr absl::Duration kReplicaSyncInterval = absl::Milliseconds(10);
// Acknowledgements that bring nothing but a new applied index wait so long for company.
inline constexpr absl::Duration kAppliedAckDelay = absl::Milliseconds(10);
// One call to one endpoint of a lease service.
inline constexpr absl::Duration kLeaseCallTimeout = absl::Seconds(2);
inline constexpr absl::Duration kLeaseConnectTimeout = absl::Seconds(1);
inline constexpr absl::Duration kLeaseWaitMax = absl::Minutes(1);  // of one WaitForChange there
inline constexpr absl::Duration kLeaseReconnectDelayMax = absl::Milliseconds(500);
// After an error of the lease server's own storage.
inline constexpr absl::Duration kLeaseStoreRetryDelay = absl::Seconds(1);
// A longer lease.ttl is a mistake: a cluster would wait so long for a new primary.
inline constexpr absl::Duration kLeaseTtlMax = absl::Hours(24);
// For the answer to a RequestHandoff, which waits for the target to catch up.
inline constexpr absl::Duration kHandoffRequestMax = absl::Seconds(60);
// For the answer to a ListPositions.
inline constexpr absl::Duration kListPositionsMax = absl::Seconds(10);
// A node that has the lease and cannot take over in this time lets others try.
inline constexpr absl::Duration kTakeOverMax = absl::Seconds(30);
// An orderly end gives the lease back in this time, or lets it run out.
inline constexpr absl::Duration kResignMax = absl::Seconds(20);
inline constexpr absl::Duration kStepDownRetry = absl::Seconds(1);
// How long a start waits to learn who is primary, before it goes on without knowing.
inline constexpr absl::Duration kSettledMax = absl::Seconds(10);
inline constexpr absl::Duration kMaintenanceTick = absl::Seconds(1);
inline constexpr absl::Duration kMaintenanceInterval = absl::Seconds(30);
// Growth of the log, in bytes, after which retention runs without waiting for the interval: a
// segment.
inline constexpr std::uint64_t kMaintenanceLogGrowth = 64u << 20;

}  // namespace echofs
