//! From the configuration to the till of this process, and the thread in which it works.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use engine::Engine;
use payment::{Provider, Sandbox, SandboxOptions, Secret, Stripe, StripeOptions};
use till::Till;
use tokio::sync::oneshot;

use crate::config::{PaymentProvider, Settings};

/// The till at the configured provider, if there is one.
pub(crate) fn open(settings: &Settings, engine: &Arc<Engine>) -> anyhow::Result<Option<Arc<Till>>> {
    let payment = &settings.payment;
    let provider = match payment.provider {
        PaymentProvider::None => return Ok(None),
        PaymentProvider::Stripe => {
            let secrets = payment.callback_secrets.iter().map(|secret| Secret::new(secret.clone())).collect();
            let mut options = StripeOptions::new(Secret::new(payment.secret_key.clone()), secrets);
            options.client.base_url.clone_from(&payment.base_url);
            options.client.dangerous_plain_http = payment.dangerous_plain_http;
            tracing::info!(at = payment.base_url, "customers pay at a provider");
            Provider::Stripe(Box::new(Stripe::new(options).context("payment.provider = stripe")?))
        }
        PaymentProvider::Sandbox => {
            ensure!(
                payment.dangerous_sandbox_provider,
                "payment.provider = sandbox: everybody can pay there without money; to try things out on this machine only, set \
                 payment.dangerous_sandbox_provider=true"
            );
            ensure!(
                !settings.is_cluster(),
                "payment.provider = sandbox: it keeps its payments in one process, so not in a cluster"
            );
            ensure!(
                settings.public.address.port() != 0,
                "payment.provider = sandbox: give public.address a port, since the sandbox's pages are there"
            );
            let options = SandboxOptions {
                file: settings.data.folder.join("sandbox-payments"),
                public: settings.public.address,
                callback_path: "/v1/payments/callbacks/sandbox".to_owned(),
            };
            tracing::warn!(
                "customers pay in the sandbox: everybody who reaches the public listener pays without money"
            );
            Provider::Sandbox(Sandbox::open(options, Arc::clone(&engine.clock))?)
        }
    };
    Ok(Some(Till::new(Arc::clone(engine), provider)))
}

/// The thread that looks after payments under way, until this is dropped.
pub(crate) struct Tending {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tending {
    pub(crate) fn start(till: &Arc<Till>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let till = Arc::clone(till);
        let work = move || {
            runtime.block_on(async {
                let sandbox = async {
                    match till.provider() {
                        Provider::Sandbox(sandbox) => Arc::clone(sandbox).run().await,
                        Provider::Stripe(_) => std::future::pending().await,
                    }
                };
                tokio::select! { () = till.run() => {}, () = sandbox => {}, _ = stopped => {} }
            });
        };
        let thread = std::thread::Builder::new().name("till".to_owned()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has ended the process.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
