//! What a user asks for that changes the host and takes long: attach, detach, leave.
//!
//! The host is changed beside the slow path, one operation after the other, while the node carries frames and
//! answers others. The slow path only prepares an operation (it says goodbye, it listens first) and follows its
//! result (it opens taps, withdraws claims, and answers the user).

use std::collections::VecDeque;

use anyhow::Result;
use overlay_proto::ids::NetworkName;

use crate::api::{AttachRequest, Response};
use crate::node::effects::{CallId, Effect};
use crate::node::networks::pins;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// Operations that wait for the one under way; each has a user who waits at a terminal.
const MAX_WAITING: usize = 16;

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `farlan attach`.
    Attach(AttachRequest),
    /// `farlan detach`.
    Detach(AttachRequest),
    /// `farlan leave`: everything is detached.
    Leave,
}

/// An operation, and who waits for it.
#[derive(Debug)]
pub(crate) struct Asked {
    operation: Operation,
    call: CallId,
}

/// The one under way, and those that wait. Bound: [`MAX_WAITING`].
#[derive(Debug, Default)]
pub struct Operations {
    under_way: Option<Asked>,
    /// The host is changed by the one under way, and the taps are being opened; what it tells.
    changed: Option<String>,
    waiting: VecDeque<Asked>,
}

impl Operations {
    /// Does the one under way take the tap of `network` away?
    pub(crate) fn takes_away(&self, network: &NetworkName) -> bool {
        let operation = self.under_way.as_ref().map(|asked| &asked.operation);
        match operation {
            Some(Operation::Detach(request)) => {
                request.network == *network && is_whole_network(request)
            }
            Some(Operation::Leave) => true,
            Some(Operation::Attach(_)) | None => false,
        }
    }

    /// Will this node have left in a moment?
    pub(crate) fn is_leaving(&self) -> bool {
        let mut all = self.under_way.iter().chain(&self.waiting);
        all.any(|asked| asked.operation == Operation::Leave)
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    fn put(&mut self, asked: Asked) {
        self.waiting.push_back(asked);
    }

    /// The next one, which is under way from now on; `None` while another is.
    fn begin(&mut self) -> Option<Operation> {
        if self.under_way.is_some() {
            return None;
        }
        self.under_way = self.waiting.pop_front();
        let asked = self.under_way.as_ref();
        asked.map(|asked| asked.operation.clone())
    }

    fn end(&mut self) -> Option<Asked> {
        self.under_way.take()
    }
}

/// Of the network, and not of one VM or NIC?
const fn is_whole_network(request: &AttachRequest) -> bool {
    request.vm.is_none() && request.nic.is_none()
}

impl Node {
    /// A user asked for `operation`.
    pub(crate) fn operate(&mut self, tick: Tick, operation: Operation, call: CallId) {
        if !self.users.operations.has_room() {
            let text = "too many attachments are being changed; try again in a moment";
            return self
                .outside
                .effects
                .reply(call, Response::Error(text.to_owned()));
        }
        self.users.operations.put(Asked { operation, call });
        self.begin_operation(tick);
    }

    fn begin_operation(&mut self, tick: Tick) {
        let Some(operation) = self.users.operations.begin() else {
            return;
        };
        match &operation {
            Operation::Attach(request) => self.prepare_attach(tick, request),
            Operation::Detach(request) if request.vm.is_none() => {
                self.say_goodbye(Some(&request.network));
            }
            Operation::Detach(_) => {}
            Operation::Leave => self.say_goodbye(None),
        }
        self.outside.effects.push(Effect::Operate(operation));
    }

    /// The operation under way is over: what it told the user, or why it was not done.
    pub(crate) fn handle_operated(&mut self, tick: Tick, done: Result<String>) {
        let asked = self.users.operations.under_way.as_ref();
        let Some(operation) = asked.map(|asked| asked.operation.clone()) else {
            return;
        };
        let line = match done {
            Ok(line) => line,
            Err(error) => {
                // A detach was refused, and all is as before.
                self.follow_attachment(tick.now);
                self.forgo_attach(tick);
                return self.end_operation(tick, |_, _| Err(error));
            }
        };
        self.users.operations.changed = Some(line);
        match operation {
            Operation::Attach(request) => self.follow_attach(tick, &request),
            Operation::Detach(request) => self.follow_detach(tick, &request),
            Operation::Leave => self.open_taps(),
        }
    }

    /// The taps are open, or are not: the operation that has changed the host is over.
    pub fn handle_opened_taps(&mut self, tick: Tick, opened: Result<()>) {
        let Some(line) = self.users.operations.changed.take() else {
            if let Err(error) = opened {
                tracing::error!("the taps cannot be opened: {error:#}");
            }
            return;
        };
        self.end_operation(tick, |node, operation| {
            opened?;
            match operation {
                Operation::Attach(request) => {
                    node.networks.check_open(&request.network).map(|()| line)
                }
                Operation::Detach(_) => Ok(line),
                Operation::Leave => node.leave_networks(tick).map(|()| line),
            }
        });
    }

    /// Ends the operation under way with what `end` makes of it, and begins the next.
    fn end_operation(
        &mut self,
        tick: Tick,
        end: impl FnOnce(&mut Self, &Operation) -> Result<String>,
    ) {
        let Some(Asked { operation, call }) = self.users.operations.end() else {
            return;
        };
        let done = end(self, &operation);
        match (&operation, &done) {
            (Operation::Leave, Ok(_)) => return self.linger(tick, call),
            (Operation::Attach(request), Ok(line)) if !request.macs.is_empty() => {
                pins::pin_attached(&mut self.outside, request, line.clone(), call);
                return self.begin_operation(tick);
            }
            _ => {}
        }
        let response = done.map_or_else(
            |error| Response::Error(format!("{error:#}")),
            Response::Done,
        );
        self.outside.effects.reply(call, response);
        self.begin_operation(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(network: &str) -> AttachRequest {
        AttachRequest::new(network.parse().unwrap())
    }

    fn asked(operation: Operation) -> Asked {
        let call = CallId(0);
        Asked { operation, call }
    }

    #[test]
    fn one_after_the_other_in_the_order_they_came_and_no_more_than_fit() {
        let mut operations = Operations::default();
        let attach = |n: usize| Operation::Attach(request(&format!("net{n}")));
        for n in 0..=MAX_WAITING {
            assert!(operations.has_room());
            operations.put(asked(attach(n)));
            assert_eq!(operations.begin(), (n == 0).then(|| attach(0)));
        }
        assert!(!operations.has_room());
        for n in 0..=MAX_WAITING {
            assert_eq!(operations.end().unwrap().operation, attach(n));
            assert_eq!(operations.begin(), (n < MAX_WAITING).then(|| attach(n + 1)));
        }
        assert!(operations.end().is_none());
    }

    #[test]
    fn what_is_taken_away_is_not_missed() {
        let mut operations = Operations::default();
        let (lab, home): (NetworkName, NetworkName) =
            ("lab".parse().unwrap(), "home".parse().unwrap());
        let vm = AttachRequest {
            vm: Some("vm1".to_owned()),
            ..request("lab")
        };
        for (operation, of_lab, of_home) in [
            (Operation::Attach(request("lab")), false, false),
            (Operation::Detach(vm), false, false),
            (Operation::Detach(request("lab")), true, false),
            (Operation::Leave, true, true),
        ] {
            operations.put(asked(operation.clone()));
            assert_eq!(operations.is_leaving(), operation == Operation::Leave);
            assert!(!operations.takes_away(&lab), "not yet");
            operations.begin().unwrap();
            let takes = (operations.takes_away(&lab), operations.takes_away(&home));
            assert_eq!(takes, (of_lab, of_home), "{operation:?}");
            operations.end().unwrap();
        }
    }
}
