//! The engine's process: the wiring of `serve`, with one serving thread because it has one core.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use ledger::Pace;
use pages::{Site, SiteOptions};
use serde::{Deserialize, Serialize};
use web::server::Routes;
use web::{App, AppOptions, HumanOptions, LimitOptions, Listener, ListenerOptions};

use crate::deployment::engine_options;
use crate::process::{Helper, Job, pin, tell, wait_for_end};

/// What to serve.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerJob {
    pub(crate) data: PathBuf,
    pub(crate) core: Option<usize>,
}

/// Where a server listens; told once it does.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
}

/// A server's process.
pub(crate) struct Running {
    pub(crate) helper: Helper,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts a server, and waits until it listens.
    pub(crate) fn start(job: &Job) -> anyhow::Result<Self> {
        let mut helper = Helper::start(job)?;
        let Listening { address } = helper.hear()?;
        Ok(Self { helper, address })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.helper.finish()
    }
}

/// Serves until the parent has enough.
pub(crate) fn serve(job: &ServerJob) -> anyhow::Result<()> {
    pin(job.core)?;
    let engine = Engine::start(&job.data, engine_options(Pace::default()))?;
    let site = Site::new(SiteOptions::default())?;
    let app = App::new(
        Arc::new(engine),
        None,
        None,
        site,
        AppOptions { purchase_wait_seconds: 10, limits: LimitOptions::default(), human: HumanOptions::default() },
    );
    let options = ListenerOptions {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 1,
        connections_max: 20_000,
        head: Duration::from_secs(5),
        body: Duration::from_secs(10),
        idle: Duration::from_secs(60),
    };
    let public = Listener::start(&app, Routes::Public, &options)?;
    let admin = Listener::start(&app, Routes::Admin, &options)?;
    tell(&Listening { address: public.address() })?;
    wait_for_end()?;
    public.stop();
    admin.stop();
    app.engine().stop();
    Ok(())
}
