//! `farlan ping`: does a peer answer, over which path, how fast, and why not better?

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use nat_traversal::path::PathKind;
use overlay_proto::ids::NetworkName;
use serde_json::json;

use super::Globals;
use super::output::{print, print_json};
use super::show::{ask_macs, call};
use crate::control_socket::api::{MacOrIp, PingReport, Request, Response};
use crate::control_socket::client::ClientError;

/// Pings without `--count`.
const COUNT: u32 = 5;

/// Pings while a direct path is waited for, without `--count`: longer than any search goes on before
/// it backs off.
const COUNT_UNTIL_DIRECT: u32 = 60;

/// Time from one ping to the next.
const EVERY: Duration = Duration::from_secs(1);

/// What `farlan ping` takes.
#[derive(Debug, Args)]
pub(super) struct PingArgs {
    /// A peer by name or id, or a guest by MAC or IP address; for a guest its peer is pinged
    #[arg(value_name = "NAME-IP-or-MAC")]
    to: String,
    /// The network to look in, if the guest's address is in several
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkName>,
    /// The number of pings, one each second [default: 5, or 60 with --until-direct]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Stop when the path is direct; fail if it never is
    #[arg(long)]
    until_direct: bool,
}

/// Runs the pings; fails if none was answered, or the path did not become direct as asked.
pub(super) fn ping(globals: &Globals, args: &PingArgs) -> Result<()> {
    let count = args.count.unwrap_or(if args.until_direct {
        COUNT_UNTIL_DIRECT
    } else {
        COUNT
    });
    if let Ok(what) = args.to.parse::<MacOrIp>() {
        // A guest's address is told up to a second after its MAC, or not at all: asking waits for it.
        let network = args.network.clone();
        ask_macs(globals, &Request::Where { what, network })?;
    }
    let mut pings: Vec<PingReport> = Vec::new();
    for number in 1..=count {
        let began = Instant::now();
        let request = Request::Ping {
            to: args.to.clone(),
            network: args.network.clone(),
        };
        let Response::Ping(report) = call(globals, &request)? else {
            return Err(ClientError::Unexpected.into());
        };
        if !globals.json {
            print(&line(number, &report))?;
        }
        let direct = report.path.kind == PathKind::Direct && report.rtt_ms.is_some();
        pings.push(*report);
        if args.until_direct && direct {
            break;
        }
        if number < count {
            std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
        }
    }
    finish(globals, args, &pings)
}

fn finish(globals: &Globals, args: &PingArgs, pings: &[PingReport]) -> Result<()> {
    let Some(last) = pings.last() else {
        return Ok(());
    };
    let rtts: Vec<f64> = pings.iter().filter_map(|ping| ping.rtt_ms).collect();
    if globals.json {
        let (least, mean, most) = spread(&rtts);
        let rtt = (!rtts.is_empty()).then(|| json!({"min": least, "avg": mean, "max": most}));
        print_json(&json!({
            "node": last.node, "name": last.name.name, "path": last.path,
            "sent": pings.len(), "answered": rtts.len(), "rtt_ms": rtt, "pings": pings,
        }))?;
    } else {
        print(&summary(pings.len(), &rtts))?;
    }
    let who = &args.to;
    let why = last.path.why_text.as_deref();
    if rtts.is_empty() {
        bail!("{who} does not answer: {}", why.unwrap_or("no path works"));
    }
    if args.until_direct && last.path.kind != PathKind::Direct {
        bail!(
            "{who} answers, but not directly: {}",
            why.unwrap_or("the path was lost")
        );
    }
    Ok(())
}

fn line(number: u32, ping: &PingReport) -> String {
    let path = &ping.path;
    let remote = path.remote.map_or_else(String::new, |at| format!(" {at}"));
    let way = match path.kind {
        PathKind::Direct => format!("direct{remote}"),
        PathKind::Relayed => format!("relayed by{remote}"),
        PathKind::Stream => format!("stream{remote}"),
        PathKind::None => "no path".to_owned(),
    };
    let answer = match (ping.rtt_ms, path.kind) {
        (Some(rtt), _) => format!("{rtt:.2} ms"),
        (None, PathKind::None) => "not sent".to_owned(),
        (None, _) => "no answer".to_owned(),
    };
    let why = path.why.as_ref().map_or_else(String::new, |code| {
        let text = path.why_text.as_deref().unwrap_or_default();
        format!("  ({code}: {text})")
    });
    format!("{number:>3}  {answer}  {way}{why}")
}

fn summary(sent: usize, rtts: &[f64]) -> String {
    let lost = (sent - rtts.len()) * 100 / sent.max(1);
    let mut text = format!("{sent} sent, {} answered, {lost} % lost", rtts.len());
    if !rtts.is_empty() {
        let (least, mean, most) = spread(rtts);
        text.push_str(&format!(
            "; RTT min/avg/max {least:.2}/{mean:.2}/{most:.2} ms"
        ));
    }
    text
}

/// Least, mean and most.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX).max(1);
    let mean = values.iter().sum::<f64>() / f64::from(count);
    (least, (mean * 100.0).round() / 100.0, most)
}

#[cfg(test)]
mod tests {
    use overlay_proto::ids::PeerId;

    use super::*;
    use crate::control_socket::api::{PathReport, ShownName};

    fn ping(kind: PathKind, rtt_ms: Option<f64>, why: Option<&str>) -> PingReport {
        PingReport {
            node: PeerId([7; 32]),
            name: ShownName::signed("oak"),
            path: PathReport {
                kind,
                remote: (kind != PathKind::None).then(|| "192.0.2.4:5".parse().unwrap()),
                via: None,
                why: why.map(str::to_owned),
                why_text: why.map(|why| format!("a sentence on {why}")),
                rtt_ms,
                mtu: None,
            },
            rtt_ms,
        }
    }

    #[test]
    fn a_line_says_path_time_and_reason() {
        assert_eq!(
            line(1, &ping(PathKind::Direct, Some(1.25), None)),
            "  1  1.25 ms  direct 192.0.2.4:5"
        );
        assert_eq!(
            line(2, &ping(PathKind::Relayed, None, Some("probing"))),
            "  2  no answer  relayed by 192.0.2.4:5  (probing: a sentence on probing)"
        );
        let none = line(3, &ping(PathKind::None, None, Some("peer-offline")));
        assert!(none.starts_with("  3  not sent  no path"), "{none}");
    }

    #[test]
    fn loss_is_counted() {
        assert_eq!(
            summary(4, &[1.0, 2.0, 6.0]),
            "4 sent, 3 answered, 25 % lost; RTT min/avg/max 1.00/3.00/6.00 ms"
        );
        assert_eq!(summary(2, &[]), "2 sent, 0 answered, 100 % lost");
    }
}
