//! The faults, and the deck that a seed deals them from.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use millstream_test_support::frames::api;
use millstream_test_support::proxy::{Catch, Toward};

use super::super::verify::Promise;

/// Which node is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Any,
    /// Of a partition of an output under exactly once.
    Leader,
    GroupCoordinator,
    TransactionCoordinator,
}

/// How long a process is away, measured by the session time-out of six seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    Briefly,
    /// Longer than a session.
    Long,
}

impl Away {
    /// A time of this kind.
    pub fn choose(self, random: &mut Rng) -> Duration {
        Duration::from_millis(match self {
            Self::Briefly => random.u64(200..3000),
            Self::Long => random.u64(7000..10_000),
        })
    }
}

/// A request that is caught on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    EndTransaction,
    TransactionOffsets,
    Offsets,
    Produce,
}

impl Request {
    /// Its number in Kafka's protocol.
    pub fn api(self) -> i16 {
        match self {
            Self::EndTransaction => api::END_TXN,
            Self::TransactionOffsets => api::TXN_OFFSET_COMMIT,
            Self::Offsets => api::OFFSET_COMMIT,
            Self::Produce => api::PRODUCE,
        }
    }
}

/// What a round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a runtime, which is started again.
    KillRuntime(Away),
    /// SIGSTOP, later SIGCONT.
    FreezeRuntime(Away),
    KillNode(Node),
    FreezeNode(Node),
    CutAll,
    CutOneByOne,
    HalfClose(Toward),
    Stall(Toward),
    Delay,
    /// Cut all, and close new connections at once.
    Refuse,
    CatchRequest(Request, Catch),
    /// A third runtime joins and leaves, again and again.
    Storm,
}

const LATE: Catch = Catch::Late(Duration::from_millis(2500));

/// Every fault once.
pub const ALL: [Fault; 28] = [
    Fault::KillRuntime(Away::Briefly),
    Fault::KillRuntime(Away::Long),
    Fault::FreezeRuntime(Away::Briefly),
    Fault::FreezeRuntime(Away::Long),
    Fault::KillNode(Node::Any),
    Fault::KillNode(Node::Leader),
    Fault::KillNode(Node::GroupCoordinator),
    Fault::KillNode(Node::TransactionCoordinator),
    Fault::FreezeNode(Node::Any),
    Fault::FreezeNode(Node::Leader),
    Fault::FreezeNode(Node::GroupCoordinator),
    Fault::FreezeNode(Node::TransactionCoordinator),
    Fault::CutAll,
    Fault::CutOneByOne,
    Fault::HalfClose(Toward::Broker),
    Fault::HalfClose(Toward::Client),
    Fault::Stall(Toward::Broker),
    Fault::Stall(Toward::Client),
    Fault::Delay,
    Fault::Refuse,
    Fault::CatchRequest(Request::EndTransaction, Catch::BeforeTheBroker),
    Fault::CatchRequest(Request::EndTransaction, Catch::AfterTheBroker),
    Fault::CatchRequest(Request::EndTransaction, LATE),
    Fault::CatchRequest(Request::TransactionOffsets, Catch::AfterTheBroker),
    Fault::CatchRequest(Request::Offsets, Catch::AfterTheBroker),
    Fault::CatchRequest(Request::Offsets, LATE),
    Fault::CatchRequest(Request::Produce, Catch::AfterTheBroker),
    Fault::Storm,
];

impl Fault {
    /// Whether it can happen to consumers of these promises, for some make no such request.
    fn concerns(self, promises: &[Promise]) -> bool {
        match self {
            Self::CatchRequest(Request::Offsets, _) => {
                promises.iter().any(|promise| *promise != Promise::Exactly)
            }
            Self::CatchRequest(Request::EndTransaction | Request::TransactionOffsets, _)
            | Self::KillNode(Node::TransactionCoordinator)
            | Self::FreezeNode(Node::TransactionCoordinator) => {
                promises.contains(&Promise::Exactly)
            }
            _ => true,
        }
    }
}

/// So many faults: all that concern these promises in an order of the seed's, then all again in
/// another.
pub fn deal(random: &mut Rng, promises: &[Promise], count: usize) -> Vec<Fault> {
    let mut deck: Vec<Fault> = ALL.into();
    deck.retain(|fault| fault.concerns(promises));
    let mut dealt = Vec::with_capacity(count + deck.len());
    while dealt.len() < count {
        random.shuffle(&mut deck);
        dealt.extend_from_slice(&deck);
    }
    dealt.truncate(count);
    dealt
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away = |away: &Away| match away {
            Away::Briefly => "briefly",
            Away::Long => "longer than its session",
        };
        let node = |node: &Node| match node {
            Node::Any => "a broker",
            Node::Leader => "the leader of an output",
            Node::GroupCoordinator => "the coordinator of a group",
            Node::TransactionCoordinator => "the coordinator of transactions",
        };
        let toward = |toward: &Toward| match toward {
            Toward::Broker => "towards the broker",
            Toward::Client => "towards the runtime",
        };
        match self {
            Self::KillRuntime(time) => write!(f, "SIGKILL of a runtime, away {}", away(time)),
            Self::FreezeRuntime(time) => write!(f, "SIGSTOP of a runtime, {}", away(time)),
            Self::KillNode(which) => write!(f, "SIGKILL of {}", node(which)),
            Self::FreezeNode(which) => write!(f, "SIGSTOP of {}", node(which)),
            Self::CutAll => f.write_str("all connections cut, twice"),
            Self::CutOneByOne => f.write_str("connections cut one by one"),
            Self::HalfClose(to) => write!(f, "connections half-closed {}", toward(to)),
            Self::Stall(to) => write!(f, "all connections stalled {}", toward(to)),
            Self::Delay => f.write_str("every frame delayed"),
            Self::Refuse => f.write_str("all connections cut and refused"),
            Self::CatchRequest(request, catch) => {
                let request = match request {
                    Request::EndTransaction => "EndTxn",
                    Request::TransactionOffsets => "TxnOffsetCommit",
                    Request::Offsets => "OffsetCommit",
                    Request::Produce => "Produce",
                };
                let catch = match catch {
                    Catch::BeforeTheBroker => "cut off before the broker",
                    Catch::AfterTheBroker => "done, the answer lost",
                    Catch::Late(_) => "cut off, delivered 2.5 s later",
                };
                write!(f, "{request} {catch}")
            }
            Self::Storm => f.write_str("a third runtime joins and leaves"),
        }
    }
}

#[test]
fn a_deck_holds_every_fault_once() {
    let all = [Promise::AtLeast, Promise::Exactly];
    let dealt = deal(&mut Rng::with_seed(7), &all, ALL.len() * 2);
    for fault in ALL {
        assert_eq!(
            dealt.iter().filter(|one| **one == fault).count(),
            2,
            "{fault}"
        );
    }
}
