//! Opening a deployment, creating sales, and finding them.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use admission::{Command, Guards, Owner, OwnerError, OwnerHandle, OwnerOptions, Reply, Request};
use chain::batch::{Batch, GENESIS_HEAD};
use chain::{AppendError, DiskFiles, Files, HeadSigner, LogReader};
use cluster::{Cluster, ClusterOptions, ConnectError, FollowError, Ladder};
use domain::record::{Created, PauseReason};
use domain::{Clock, Promise, SaleDefinition, SaleId, SaleOrdinal, limits};
use gate::identity::{IdentityConfig, IdentityConfigError, IdentityVerifier};
use gate::ids::IdKeys;
use gate::pseudonym::IdentityKey;
use keyring::{Keyring, KeyringError, KeyringOptions};
use ledger::StoreError;
use ledger::books::{Books, BooksError, Service};
use ledger::service::{BooksService, OnDrift, Pace};
use ledger::vault::{
    AdminTokens, PostgresOptions, PostgresVault, SaleSecrets, Vault, VaultError, VaultService, VaultStore,
};

use crate::data::{DataError, DataFolder};
use crate::identities::Identities;
use crate::pass_keys::PassRing;
use crate::sale::{People, Sale};
use crate::showcase::Showcases;

/// Hears that an owner stopped with an error. The process must end: the last batch is unknown until the next start.
pub type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// A deployment of several processes.
#[derive(Clone)]
pub struct ClusterSettings {
    /// Its servers, and this process's part.
    pub options: ClusterOptions,
    /// The vault that all processes share.
    pub vault: PostgresOptions,
}

/// How a deployment runs.
pub struct EngineOptions {
    /// The cluster that this process belongs to; alone on this machine without one.
    pub cluster: Option<ClusterSettings>,
    /// Whose tokens are believed.
    pub identity: IdentityConfig,
    /// Where the shop publishes its keys, if it does.
    pub keyring: Option<KeyringOptions>,
    /// How fast the books follow the chains.
    pub books_pace: Pace,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// What to do when an owner stops with an error.
    pub on_fatal: OnFatal,
}

/// Why a deployment did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// There are chains but no vault.
    #[error(
        "{0}: this chain is here but vault.sqlite is not; restore the vault from its backup, nothing else has its keys"
    )]
    VaultMissing(PathBuf),
    /// The books know a sale whose chain is not there.
    #[error("{}: the books know {known} records of this sale, and its chain is gone; restore the folder from its backup", .folder.display())]
    ChainMissing {
        /// Where the chain was.
        folder: PathBuf,
        /// Records that the books have applied.
        known: u64,
    },
    /// The books.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The identity settings.
    #[error(transparent)]
    Identity(#[from] IdentityConfigError),
    /// Where the shop's keys are.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// One sale's chain.
    #[error("sale {sale}: {source}")]
    Owner {
        /// Its name.
        sale: String,
        /// Why.
        source: OwnerError,
    },
    /// The servers of the cluster.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// One sale's chain in the cluster.
    #[error("sale {sale}: {source}")]
    Follow {
        /// Its name.
        sale: String,
        /// Why.
        source: FollowError,
    },
    /// A sale's chain was not begun in the cluster.
    #[error("sale {sale}: {source}")]
    Begin {
        /// Its name.
        sale: String,
        /// Why.
        source: cluster::CreateError,
    },
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl StartError {
    /// Whether servers did not answer: the outcome is unknown, and trying again is safe.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::Follow { .. } | Self::Begin { .. })
            || matches!(self, Self::Vault(VaultError::Store(error)) if error.may_pass())
    }

    /// Whether what failed had no room on the disk; with room it works.
    pub fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let of_system = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            let of_store = error.downcast_ref::<StoreError>();
            let of_chain = error.downcast_ref::<OwnerError>();
            if matches!(of_system, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
                || matches!(of_store, Some(StoreError::Full))
                || matches!(of_chain, Some(OwnerError::Append(AppendError::Full(_))))
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Why a sale was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The definition breaks a rule; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// The name is taken.
    #[error("a sale of this name exists")]
    Exists,
    /// There are as many sales as there may be.
    #[error("a deployment has at most {} sales", limits::SALES_MAX)]
    TooMany,
    /// It could not be written.
    #[error(transparent)]
    Start(#[from] StartError),
}

#[derive(Default)]
pub(crate) struct Registry {
    by_name: HashMap<String, Arc<Sale>>,
    by_ordinal: HashMap<SaleOrdinal, Arc<Sale>>,
}

/// One deployment, running.
pub struct Engine {
    /// Makes and reads public ids.
    pub ids: IdKeys,
    /// Makes and reads passes.
    pub passes: PassRing,
    /// Hashes identities into passes.
    pub identity_key: IdentityKey,
    /// Believes access tokens.
    pub identities: Identities,
    /// Customers, secrets, admin tokens.
    pub vault: VaultService,
    /// The projection's writer.
    pub books: BooksService,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<RwLock<Registry>>,
    /// Held while a sale is created, so that two of a name cannot be, and while admin tokens or showcases change or are read anew.
    pub(crate) creating: Mutex<()>,
    pub(crate) on_fatal: OnFatal,
    files: Arc<dyn Files>,
    pub(crate) data: DataFolder,
    pub(crate) cluster: Option<Cluster>,
    /// In a cluster: the admin tokens as last read, so that no request waits for the vault.
    pub(crate) admin_tokens: RwLock<AdminTokens>,
    pub(crate) showcases: Showcases,
    pub(crate) blocks: crate::blocks::Blocks,
}

impl Engine {
    /// Opens the data folder and everything in it; every sale has replayed its chain when this returns.
    pub fn start(data: &Path, options: EngineOptions) -> Result<Self, StartError> {
        // Before anything is touched: the settings may still be wrong.
        let verifier = IdentityVerifier::new(options.identity)?;
        let keyring = options.keyring.map(|keyring| Keyring::start(keyring, Arc::clone(&options.clock))).transpose()?;
        let data = DataFolder::open(data)?;
        let files: Arc<dyn Files> = Arc::new(DiskFiles);
        let (mut vault, cluster) = open_vault(options.cluster, &data, &options.clock)?;
        if vault.first_admin_token(&data.admin_token())? {
            tracing::info!(file = %data.admin_token().display(), "an owner's admin token has been written");
        }
        let keys = vault.deployment_keys()?;
        let sales = vault.sales()?;
        let registry = Arc::new(RwLock::new(Registry::default()));
        let books = Books::open(&data.books())?;
        let books = BooksService::start(books, Arc::clone(&files), options.books_pace, pause_on_drift(&registry))?;
        let engine = Self {
            ids: IdKeys::new(&keys.id_key),
            passes: PassRing::new(&keys)?,
            identity_key: IdentityKey::new(&keys.identity_hash_key),
            identities: Identities::new(verifier, keyring),
            vault: VaultService::start(vault)?,
            books,
            clock: options.clock,
            registry,
            creating: Mutex::default(),
            on_fatal: options.on_fatal,
            files,
            data,
            cluster,
            admin_tokens: RwLock::default(),
            showcases: Showcases::default(),
            blocks: Default::default(),
        };
        // Before there are sales, each of which takes its own.
        engine.read_showcases_anew()?;
        engine.read_blocks_anew()?;
        if engine.cluster.is_some() {
            engine.look_for_sales()?;
            return Ok(engine);
        }
        for secrets in sales {
            // A name registered just before a crash has secrets and no chain; creating it again takes them up.
            if !has_chain(&engine.data.sale(&secrets.name)) {
                engine.refuse_without_chain(&secrets.name)?;
                continue;
            }
            match engine.open_sale(&secrets) {
                // Nobody has been told of a sale whose first batch is not there.
                Err(StartError::Owner { source: OwnerError::Empty, .. }) => {
                    std::fs::remove_dir_all(engine.data.sale(&secrets.name))?;
                }
                opened => drop(opened?),
            }
        }
        Ok(engine)
    }

    fn open_sale(&self, secrets: &SaleSecrets) -> Result<Arc<Sale>, StartError> {
        let folder = self.data.sale(&secrets.name);
        let owner = Owner::open(Arc::clone(&self.files), &folder, owner_options(secrets), self.clocks())
            .map_err(|source| StartError::Owner { sale: secrets.name.clone(), source })?;
        self.check_books(&secrets.name, owner.log().next())?;
        self.run_sale(secrets, owner)
    }

    /// A sale that the books have seen did exist: its chain was lost, not never made.
    fn refuse_without_chain(&self, name: &str) -> Result<(), StartError> {
        let books = self.books_reader()?;
        for service in Service::ALL {
            let (known, _) = books.offset(service, name)?;
            if known > 0 {
                return Err(StartError::ChainMissing { folder: self.data.sale(name), known });
            }
        }
        Ok(())
    }

    /// Books that know records which the log does not have mean that the log was restored from an older copy: refuse.
    pub(crate) fn check_books(&self, name: &str, log_next: u64) -> Result<(), StartError> {
        let books = Books::open_reader(&self.data.books())?;
        for service in Service::ALL {
            let (next, _) = books.offset(service, name)?;
            books.check_not_ahead(service, name, log_next, self.head_before(name, next).as_ref())?;
        }
        Ok(())
    }

    fn head_before(&self, name: &str, next: u64) -> Option<domain::ids::Hash> {
        let Some(last) = next.checked_sub(1) else { return Some(GENESIS_HEAD) };
        let mut reader = LogReader::open(Arc::clone(&self.files), &self.data.sale(name)).ok()?;
        let bytes = reader.batch_containing(last).ok()??;
        let batch = Batch::parse(&bytes).ok()?;
        (batch.header.next() == next).then_some(batch.head.head)
    }

    fn run_sale(&self, secrets: &SaleSecrets, owner: Owner) -> Result<Arc<Sale>, StartError> {
        let on_fatal = Arc::clone(&self.on_fatal);
        let name = secrets.name.clone();
        let on_stop = move |outcome: Result<(), OwnerError>| {
            if let Err(error) = outcome {
                on_fatal(format!("sale {name}: {error}"));
            }
        };
        let owner = OwnerHandle::spawn(owner, Arc::clone(&self.clock), Arc::clone(&self.files), on_stop)?;
        Ok(self.register(secrets, owner, None, true))
    }

    /// From here on the sale is served, and the books follow it where this process keeps them.
    pub(crate) fn register(
        &self,
        secrets: &SaleSecrets,
        owner: OwnerHandle,
        ladder: Option<Arc<Ladder>>,
        keeps_books: bool,
    ) -> Arc<Sale> {
        let folder = self.data.sale(&secrets.name);
        if keeps_books {
            self.books.add_sale(&secrets.name, folder.clone(), Arc::clone(owner.view().watermark()));
        }
        let signer = HeadSigner::from_seed(&secrets.signing_seed);
        let showcase = self.showcases.of(secrets.ordinal, owner.view().definition());
        let sale = Arc::new(Sale {
            ordinal: secrets.ordinal,
            id: secrets.sale,
            signing_key: signer.public_key(),
            signer,
            owner: Arc::new(owner),
            ladder,
            people: RwLock::new(People::of(secrets)),
            showcase: RwLock::new(showcase),
            slot_secret: secrets.slot_secret,
            folder,
            reader: Mutex::default(),
            recent: Mutex::default(),
        });
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        registry.by_name.insert(secrets.name.clone(), Arc::clone(&sale));
        registry.by_ordinal.insert(secrets.ordinal, Arc::clone(&sale));
        sale
    }

    /// Creates a sale: secrets into the vault, then the chain with its commitments. Blocks for some syncs.
    pub fn create_sale(&self, definition: &SaleDefinition) -> Result<Arc<Sale>, CreateError> {
        definition.validate().map_err(CreateError::Invalid)?;
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sale(&definition.sale).is_some() {
            return Err(CreateError::Exists);
        }
        if self.sales().len() >= limits::SALES_MAX {
            return Err(CreateError::TooMany);
        }
        let secrets = self.vault.with(|vault| vault.register_sale(&definition.sale)).map_err(StartError::from)?;
        let options = owner_options(&secrets);
        let definition = self.without_codes(definition, secrets.sale);
        let bytes = serde_json::to_vec(&definition);
        let bytes = bytes.map_err(|error| CreateError::Invalid(error.to_string()))?;
        if bytes.len() > limits::DEFINITION_BYTES_MAX {
            return Err(CreateError::Invalid("the definition is too large".to_owned()));
        }
        let created = Created {
            ordinal: secrets.ordinal,
            slot_commitment: chain::head::slot_commitment(secrets.sale, &secrets.slot_secret),
            pseudonym_commitment: chain::head::pseudonym_commitment(secrets.sale, &secrets.pseudonym_key),
            signing_key: options.signer.public_key(),
            definition: bytes,
        };
        if self.cluster.is_some() {
            let sale = self.begin_in_cluster(&secrets, created)?;
            // Another process may have been asked for a sale of the same name in the same moment.
            return if *sale.definition() == definition { Ok(sale) } else { Err(CreateError::Exists) };
        }
        let folder = self.data.sale(&secrets.name);
        let owner = Owner::create(Arc::clone(&self.files), &folder, secrets.sale, created, options, self.clocks())
            .map_err(|source| StartError::Owner { sale: secrets.name.clone(), source })?;
        Ok(self.run_sale(&secrets, owner)?)
    }

    /// The definition as the chain has it, which anybody may read: a coupon's code is only known to who was given it.
    pub fn without_codes(&self, definition: &SaleDefinition, sale: SaleId) -> SaleDefinition {
        let mut definition = definition.clone();
        for coupon in &mut definition.coupons {
            coupon.hash = coupon.code.take().map(|code| self.ids.coupon_hash(sale, &code)).or(coupon.hash);
        }
        definition
    }

    /// The sale of that name.
    pub fn sale(&self, name: &str) -> Option<Arc<Sale>> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    /// The sale of that ordinal.
    pub fn sale_by_ordinal(&self, ordinal: SaleOrdinal) -> Option<Arc<Sale>> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).by_ordinal.get(&ordinal).cloned()
    }

    /// All sales, the oldest first.
    pub fn sales(&self) -> Vec<Arc<Sale>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut sales: Vec<_> = registry.by_name.values().cloned().collect();
        sales.sort_by_key(|sale| sale.ordinal);
        sales
    }

    /// A connection to the books for queries; it never waits for the writer.
    pub fn books_reader(&self) -> Result<Books, BooksError> {
        Books::open_reader(&self.data.books())
    }

    /// The data folder.
    pub fn data(&self) -> &DataFolder {
        &self.data
    }

    /// Now, Unix milliseconds.
    pub fn now(&self) -> u64 {
        self.clock.wall_milliseconds()
    }

    fn clocks(&self) -> (u64, u64) {
        (self.clock.wall_milliseconds(), self.clock.monotonic_milliseconds())
    }

    /// Lets every owner finish what it has taken, and ends its thread.
    pub fn stop(&self) {
        for sale in self.sales() {
            sale.owner.stop();
        }
    }
}

/// The vault, and the servers of the cluster if there is one.
fn open_vault(
    settings: Option<ClusterSettings>,
    data: &DataFolder,
    clock: &Arc<dyn Clock>,
) -> Result<(Box<dyn VaultStore>, Option<Cluster>), StartError> {
    let Some(ClusterSettings { mut options, vault }) = settings else {
        data.belong_to(None)?;
        refuse_without_vault(data)?;
        return Ok((Box::new(Vault::open(&data.vault(), Arc::clone(clock))?), None));
    };
    let mut vault = PostgresVault::open(&vault, Arc::clone(clock))?;
    options.store.vault = vault.deployment_keys()?.vault_id();
    let cluster = Cluster::connect(options, Arc::clone(clock))?;
    let store = &cluster.options().store;
    data.belong_to(Some(&format!("{} {}", store.name, store.vault)))?;
    Ok((Box::new(vault), Some(cluster)))
}

fn owner_options(secrets: &SaleSecrets) -> OwnerOptions {
    OwnerOptions {
        signer: HeadSigner::from_seed(&secrets.signing_seed),
        slot_secret: secrets.slot_secret,
        guards: Guards::ON,
    }
}

/// A vault made anew would know neither the customers nor the keys of the chains that are there.
fn refuse_without_vault(data: &DataFolder) -> Result<(), StartError> {
    let sales = data.path().join("sales");
    let chained = std::fs::read_dir(&sales)?.flatten().find(|entry| has_chain(&entry.path()));
    match chained {
        Some(entry) if !data.vault().exists() => Err(StartError::VaultMissing(entry.path())),
        _ => Ok(()),
    }
}

fn has_chain(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".segment")))
    })
}

/// A contradiction between chain and orders or inventory stops purchases of that sale; what is held can still be paid or given back. One
/// of another service is an alarm.
fn pause_on_drift(registry: &Arc<RwLock<Registry>>) -> OnDrift {
    let registry = Arc::clone(registry);
    Box::new(move |service, name, reason| {
        if service != Service::Orders {
            // They account for what was decided, and nobody who buys waits for that.
            tracing::error!(service = service.name(), sale = name, reason, "the books contradict the chain");
            return;
        }
        tracing::error!(
            sale = name,
            reason,
            "{}: the books contradict the chain; the sale is paused",
            Promise::Conservation.id()
        );
        let sale = registry.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned();
        if let Some(sale) = sale {
            let pause = Request::Decide(Command::Pause(PauseReason::Drift), None);
            // A full inbox means that purchases are being refused already; the alarm above stands.
            let _ = sale.owner.submit(pause, Reply::Nobody);
        }
    })
}
