//! `standin --secret-key sk_test_x --callback-secret whsec_x [--callback 127.0.0.1:8080/path] [--address A] [--direction A]`
//! `[--seed N] [--customers wait|pay] [--delay MILLISECONDS]`: a stand-in until Ctrl-C or the end of its input.
//!
//! It prints its two addresses and, when it ends, the totals of its books.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};
use standin::{Behaviour, CallbackTarget, Customers, StandIn, StandInOptions};

fn main() -> anyhow::Result<()> {
    let standin = StandIn::start(options(std::env::args().skip(1))?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "the engine reaches it at {}, whoever directs it at {}", standin.address(), standin.direction())?;
    out.flush()?;
    // Whoever started it holds the other end, so it does not outlive them.
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    let books = standin.books();
    writeln!(out, "{} payments; captured {:?}, refunded {:?}", books.payments.len(), books.captured, books.refunded)?;
    Ok(())
}

fn options(mut words: impl Iterator<Item = String>) -> anyhow::Result<StandInOptions> {
    let mut options = StandInOptions::new("", "");
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let wrong = || format!("{word} {value}");
        match word.as_str() {
            "--secret-key" => options.secret_key = value,
            "--callback-secret" => options.callback_secret = value,
            "--callback" => options.callback = Some(target(&value).with_context(wrong)?),
            "--address" => options.address = value.parse().with_context(wrong)?,
            "--direction" => options.direction = value.parse().with_context(wrong)?,
            "--delay" => options.callback_delay_milliseconds_max = value.parse().with_context(wrong)?,
            // With a seed, payments behave in every way; without one, as they should.
            "--seed" => {
                options.plan.seed = value.parse().with_context(wrong)?;
                options.plan.weights = Behaviour::ALL.map(|behaviour| (behaviour, 1)).to_vec();
            }
            "--customers" => {
                options.customers = match value.as_str() {
                    "wait" => Customers::WhenAsked,
                    "pay" => Customers::AtOnce,
                    _ => bail!("--customers {value}: either pay or wait"),
                };
            }
            _ => bail!("{word} is not known; the head of crates/standin/src/main.rs lists what is"),
        }
    }
    if options.secret_key.is_empty() || options.callback_secret.is_empty() {
        bail!("--secret-key and --callback-secret are needed: the engine is configured with the same");
    }
    Ok(options)
}

fn target(text: &str) -> anyhow::Result<CallbackTarget> {
    let (address, path) = text.split_once('/').context("give an address and a path: 127.0.0.1:8080/path")?;
    let address: std::net::SocketAddr = address.parse()?;
    if !address.ip().is_loopback() {
        bail!("callbacks go to loopback only");
    }
    Ok(CallbackTarget { address, path: format!("/{path}") })
}
