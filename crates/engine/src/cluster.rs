//! The engine's part in a cluster: sales that any process may have created, each with a chain that all of them follow.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

use chain::HeadSigner;
use cluster::{Cluster, News, Order, Part, Roles, Shared};
use domain::record::Created;
use ledger::vault::{SaleSecrets, VaultError};

use crate::engine::{Engine, StartError};
use crate::sale::Sale;

impl Engine {
    /// What this process does; everything, where it is alone.
    pub fn roles(&self) -> Roles {
        let all = Roles { gate: true, relay: true, worker: true };
        self.cluster.as_ref().map_or(all, |cluster| cluster.options().roles)
    }

    /// Under which number this process is known in locks; `None` for one that is alone.
    pub fn process(&self) -> Option<u64> {
        self.cluster.as_ref().map(|cluster| cluster.options().process)
    }

    /// What the gates of a cluster keep together beside the sales; `None` for a process that is alone.
    pub fn shared(&self) -> Option<&Arc<Shared>> {
        self.cluster.as_ref().map(Cluster::shared)
    }

    /// What other processes tell, for a gate of a cluster.
    pub fn listen(&self) -> Option<Receiver<News>> {
        self.cluster.as_ref().filter(|cluster| cluster.options().roles.gate).map(Cluster::listen)
    }

    /// Learns who is blocked, if that has changed. Blocks.
    pub fn look_for_blocks(&self) -> Result<(), VaultError> {
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        self.notice_blocks()
    }

    /// Takes part in the sales that other processes have created since, and learns which admin tokens are believed,
    /// which pass keys there are, whether customers were erased, who is blocked and what the sales' pages show; for a cluster, now and then.
    /// Blocks while a chain is read.
    pub fn look_for_sales(&self) -> Result<(), StartError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_tokens_anew()?;
        self.notice_pass_keys()?;
        self.vault.notice_erasures()?;
        self.notice_showcases()?;
        self.notice_blocks()?;
        let mut joined = Vec::new();
        for secrets in self.vault.with(|vault| vault.sales())? {
            match self.sale(&secrets.name) {
                Some(sale) => sale.forget(&secrets),
                None => joined.extend(self.join(cluster, &secrets)?),
            }
        }
        cluster.wait_until_decided(joined.iter().map(|sale| sale.view()));
        Ok(())
    }

    /// Has one process decide a sale in Redis's place, or lets the rung follow from what works. `None` for a process that is alone.
    pub fn order_rung(&self, sale: &Sale, order: Order) -> Option<Result<(), cluster::ReadError>> {
        self.cluster.as_ref().map(|cluster| cluster.order(sale.name(), order))
    }

    /// Begins a sale's chain and takes part in it. The caller holds `creating`.
    pub(crate) fn begin_in_cluster(&self, secrets: &SaleSecrets, created: Created) -> Result<Arc<Sale>, StartError> {
        let begin = |source| StartError::Begin { sale: secrets.name.clone(), source };
        let cluster = self.cluster.as_ref().expect("only a cluster begins a chain there");
        let folder = self.data.sale(&secrets.name);
        cluster.create(&part(secrets, &folder), created).map_err(begin)?;
        // Its first batch has just been acknowledged.
        let joined = self.join(cluster, secrets)?;
        let unseen = || begin(cluster::ReadError::Unreachable("the new chain cannot be seen yet".to_owned()).into());
        let sale = joined.ok_or_else(unseen)?;
        // Whoever is told of a sale may buy in it.
        cluster.wait_until_decided([sale.view()]);
        Ok(sale)
    }

    fn join(&self, cluster: &Cluster, secrets: &SaleSecrets) -> Result<Option<Arc<Sale>>, StartError> {
        let folder = self.data.sale(&secrets.name);
        let (on_fatal, name) = (Arc::clone(&self.on_fatal), secrets.name.clone());
        let on_end = Box::new(move |error| on_fatal(format!("sale {name}: {error}")));
        let joined = cluster
            .join(part(secrets, &folder), on_end)
            .map_err(|source| StartError::Follow { sale: secrets.name.clone(), source })?;
        let Some((owner, ladder)) = joined else { return Ok(None) };
        let keeps_books = cluster.options().roles.worker;
        if keeps_books {
            self.check_books(&secrets.name, owner.view().watermark().next())?;
        }
        Ok(Some(self.register(secrets, owner, Some(ladder), keeps_books)))
    }
}

fn part<'a>(secrets: &'a SaleSecrets, folder: &'a std::path::Path) -> Part<'a> {
    Part {
        name: &secrets.name,
        sale: secrets.sale,
        folder,
        signer: HeadSigner::from_seed(&secrets.signing_seed),
        slot_secret: secrets.slot_secret,
    }
}
