//! What the slow path wants of the outside, in the order in which it wants it.
//!
//! The slow path decides and the shell (`overlay-node`) acts. Because all stands in one queue, a session is in the
//! published `Fib` before the datagram that lets the peer use it, and a claim leaves before the frame of its MAC.
//! What the outside refuses comes back as an input.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::control::GateState;
use crate::questions::{Question, QuestionId};
use crate::store::{Write, WriteId};
use nat_traversal::path::Path;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{Fib, NetIndex, PeerCounters};

use crate::api::Response;
use crate::node::host_orders::BridgeOrder;
use crate::node::host_orders::HostTask;
use crate::node::users::operations::Operation;

/// Names a request of the control socket until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A challenge that the own interface may not take: the agent asks for less then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sized {
    /// Whom it was for.
    pub(crate) peer: PeerId,
    /// On which path.
    pub(crate) path: Path,
    /// How large it was without a relay's header, in bytes.
    pub(crate) len: usize,
}

/// A datagram for the data path's sockets.
#[derive(Debug)]
pub struct Datagram {
    /// Where it goes.
    pub to: SocketAddr,
    /// As it travels, a relay's header included.
    pub bytes: Vec<u8>,
    /// Set for a challenge; of everything else that is refused only the reason is told.
    pub probe: Option<Box<Sized>>,
}

/// A frame for the tap of a network.
#[derive(Debug)]
pub struct TapFrame {
    /// The network.
    pub net: NetIndex,
    /// The frame.
    pub bytes: Vec<u8>,
    /// Of the peer that sent it; none for a frame of our own.
    pub from: Option<Arc<PeerCounters>>,
}

/// One thing that the slow path wants.
#[derive(Debug)]
pub enum Effect {
    /// The workers go by this from now on.
    Publish(Arc<Fib>),
    /// Refused: [`Node::handle_unsent`](crate::node::switchboard::run::Node::handle_unsent).
    Send(Datagram),
    /// Refused: its reason is counted.
    Write(TapFrame),
    /// The taps are opened as the record on disk says, and answered by
    /// [`Node::handle_taps`](crate::node::switchboard::run::Node::handle_taps).
    OpenTaps,
    /// Rules of the host's firewall that are missing for an own bridge are put back, if there is a reason to look.
    KeepPassage,
    /// The host is changed; answered by [`Answer::Operated`](crate::node::switchboard::answers::Answer). One at a time.
    Operate(Operation),
    /// Answered as it says.
    Host(HostTask),
    /// Refused: the bridges are looked at.
    Order(BridgeOrder),
    /// How long a move of addresses still waits for its confirmation:
    /// [`Node::handle_move`](crate::node::switchboard::run::Node::handle_move).
    LookAtMove,
    /// The attachments as they are on disk: [`Node::handle_records`](crate::node::switchboard::run::Node::handle_records).
    LookAtRecords,
    /// Taps and bridges are compared with the record, now.
    LookAtInterfaces,
    /// The gate of the control plane goes by this from now on; before what is asked or written after it.
    SetGate(Box<GateState>),
    /// Answered by [`Answer::Asked`](crate::node::switchboard::answers::Answer).
    Ask(QuestionId, Question),
    /// Is to be on disk; answered by [`Answer::Written`](crate::node::switchboard::answers::Answer). One at a time.
    Keep(WriteId, Arc<Write>),
    /// A user is answered. He may have gone; there is nobody to tell then.
    Reply(CallId, Response),
}

/// All that is wanted and not done yet. Bound: what one turn of the slow path makes of its inputs, since all is
/// done after each.
#[derive(Debug, Default)]
pub struct Effects(VecDeque<Effect>);

impl Effects {
    /// Wants `effect` after all that was wanted before.
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    /// Answers a user.
    pub(crate) fn reply(&mut self, call: CallId, response: Response) {
        self.push(Effect::Reply(call, response));
    }

    /// What is to be done next.
    pub fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}

/// As it goes to the user.
pub(crate) fn response(result: anyhow::Result<String>) -> Response {
    match result {
        Ok(line) => Response::Done(line),
        Err(error) => Response::Error(format!("{error:#}")),
    }
}
