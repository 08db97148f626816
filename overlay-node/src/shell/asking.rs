//! Carries a question out: the only place that knows the control plane's handle.

use std::future::Future;

use control_plane::{ControlHandle, RequestError};
use control_proto::messages::RefusedReason;
use nat_traversal::relay::RelayKey;
use node_core::questions::{Allocation, Failure, MAX_PERMITTED, Outcome, Question};
use tokio::time::timeout;

const _: () = assert!(MAX_PERMITTED <= control_proto::messages::MAX_PERMITS);

/// Asks, and says what came of it, within the question's patience.
pub(crate) async fn carry_out(control: ControlHandle, question: Question) -> Outcome {
    let patience = question.patience();
    timeout(patience, ask(&control, question))
        .await
        .unwrap_or(Outcome::Failed(Failure::NoAnswer))
}

async fn ask(control: &ControlHandle, question: Question) -> Outcome {
    match question {
        Question::SetBootstraps(addrs) => {
            // They were checked when the invite was.
            let addrs = addrs.iter().filter_map(|addr| addr.parse().ok());
            done(control.set_bootstraps(addrs.collect())).await
        }
        Question::SetIncarnation(incarnation) => done(control.set_incarnation(incarnation)).await,
        Question::FollowRevocations => done(control.follow_revocations()).await,
        Question::Register {
            rendezvous, card, ..
        } => told(control.register(rendezvous, card), Outcome::Cards).await,
        Question::Allocate { infra } => {
            let allocation = |one: control_proto::messages::Allocation| {
                Outcome::Allocation(Allocation {
                    id: one.id,
                    key: RelayKey(one.key),
                })
            };
            told(control.allocate(infra), allocation).await
        }
        Question::Permit {
            infra,
            allocation,
            peers,
        } => done(control.permit(infra, allocation, peers)).await,
        Question::Receipt { infra, chain } => {
            told(control.receipt(infra, chain.encode()), Outcome::Receipt).await
        }
        Question::Clock { infra } => told(control.clock(infra), Outcome::Clock).await,
        Question::Greet { to, envelope } => done(control.forward(to, envelope)).await,
        Question::GetRecord { dht_key, .. } => Outcome::Record(control.get_record(dht_key).await),
        Question::PutRecord { dht_key, record } => done(control.put_record(dht_key, record)).await,
    }
}

async fn done(asked: impl Future<Output = Result<(), RequestError>>) -> Outcome {
    told(asked, |()| Outcome::Done).await
}

async fn told<T>(
    asked: impl Future<Output = Result<T, RequestError>>,
    outcome: impl FnOnce(T) -> Outcome,
) -> Outcome {
    asked.await.map_or_else(
        |error| {
            tracing::debug!(%error, "a question to the control plane");
            Outcome::Failed(failure(&error))
        },
        outcome,
    )
}

fn failure(error: &RequestError) -> Failure {
    match error {
        RequestError::NotConnected | RequestError::Stopped => Failure::NotConnected,
        RequestError::NoAnswer => Failure::NoAnswer,
        RequestError::Refused(RefusedReason::RateLimited | RefusedReason::Busy) => Failure::Busy,
        RequestError::Refused(_) | RequestError::Misbehaved | RequestError::Address(_) => {
            Failure::Refused
        }
    }
}
