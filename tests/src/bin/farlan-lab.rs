//! The lab for people and for `./demo`: makes a bootstrap host and two sites, keeps them until it
//! ends, and sends checked bytes over TCP.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result};
use farlan_tests::lab::{Lab, sweep};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{tcp_receive, tcp_send};
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;

const USAGE: &str = "usage: farlan-lab serve FILE        make a bootstrap host and two sites, write their names to FILE
                                    as shell variables, keep them until this process ends
       farlan-lab sweep             remove what labs of dead processes left
       farlan-lab receive ADDR:PORT take one TCP connection and check its bytes
       farlan-lab send ADDR:PORT N  send N bytes to it";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farlan-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", file] => serve(file),
        ["sweep"] => {
            sweep();
            Ok(())
        }
        ["receive", addr] => {
            let addr: SocketAddr = addr.parse()?;
            let n = tcp_receive(&TcpListener::bind(addr)?)?;
            println!("{n} bytes arrived, each as sent");
            Ok(())
        }
        ["send", addr, bytes] => {
            let took = tcp_send(addr.parse()?, bytes.parse().context("N is a number")?)?;
            println!("{bytes} bytes in {:.2} s", took.as_secs_f64());
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}

/// The demo's topology: 50 ms there and back between any two sites; site `a` rewrites ports, site
/// `b` keeps them.
fn serve(file: &str) -> Result<()> {
    let lab = Lab::new()?;
    let model = LinkModel::default();
    let boot = lab.bootstrap_host("boot", 1, Family::V4, model)?;
    let a = lab.site("a", 1, NatKind::PortRewriting, Family::V4, 1, model)?;
    let b = lab.site("b", 2, NatKind::PortPreserving, Family::V4, 1, model)?;
    let names = format!(
        "LAB_PID={}\nLAB_PREFIX={}\nLAB_DIR={}\nBOOT={}\nBOOT_IP1={}\nBOOT_IP2={}\n\
         A={}\nA_PUBLIC={}\nB={}\nB_PUBLIC={}\n",
        std::process::id(),
        lab.prefix(),
        lab.dir().display(),
        boot.ns.full_name(),
        boot.addrs[0],
        boot.addrs[1],
        a.hosts[0].ns.full_name(),
        a.public,
        b.hosts[0].ns.full_name(),
        b.public,
    );
    // Written whole, then named: a reader sees all of it or nothing.
    let part = format!("{file}.part");
    std::fs::File::create(&part)?.write_all(names.as_bytes())?;
    std::fs::rename(&part, file)?;
    loop {
        std::thread::park();
    }
}
