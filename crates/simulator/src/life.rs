//! How processes begin and end: the first start, crashes, restarts, and the sale's last days.

use std::sync::Arc;

use admission::{Owner, OwnerError, OwnerOptions};
use chain::{LogReader, OpenError};
use domain::SalePhase;

use crate::foresight::Foresight;
use crate::provider::provider_reports;
use crate::simulation::{End, World};

/// Starts in a row that the weather may spoil.
const SPOILED_STARTS_MAX: u32 = 3;
/// Starts in a row after which something else than the weather is wrong: each fault strikes once.
const STARTS_MAX: u32 = 10;

impl World {
    fn owner_options(&self) -> OwnerOptions {
        OwnerOptions { signer: self.plan.signer(), slot_secret: self.plan.slot_secret, guards: self.options.guards }
    }

    /// Creates the sale, over as many crashes as it takes.
    pub(crate) fn create(&mut self) -> Result<(), String> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let spoiled = attempts <= SPOILED_STARTS_MAX && self.random.u32(0..400) < self.plan.weather.power;
            if spoiled {
                self.disk.lose_power_after(self.random.u64(0..16));
            }
            let (files, options) = (Arc::clone(&self.files), self.owner_options());
            let created = Owner::create(files, &self.folder, self.plan.sale, self.plan.created(), options, self.clocks);
            match created {
                Ok(owner) => {
                    self.owner = Some(owner);
                    if self.options.naive {
                        self.foresight =
                            Some(Foresight::create(self.plan.definition.clone(), self.plan.slot_secret, self.clocks));
                    }
                    return Ok(());
                }
                Err(error) if !spoiled => return Err(format!("the sale could not be created: {error}")),
                Err(_) => {}
            }
            // Nobody was told that the sale exists: whatever is there is left behind.
            self.disk.lose_power();
            self.folder = format!("sales/drop-{attempts}").into();
        }
    }

    /// The process ends here, with or without the power; another one takes over after a while.
    pub(crate) fn crash(&mut self) -> Result<End, String> {
        self.tally.crashes += 1;
        if self.power_is_gone() || self.random.bool() {
            self.disk.lose_power();
        } else {
            self.disk.kill_process();
        }
        let time = self.note_time();
        self.owner = None;
        self.spare = None;
        self.storage_full = false;
        for (_, ticket) in std::mem::take(&mut self.inbox) {
            self.shoppers.lost(&ticket, time);
        }
        self.books.crash(&mut self.random, &self.plan.weather)?;
        let (wall, monotonic) = &mut self.clocks;
        *wall += if self.random.u8(0..4) == 0 { self.random.u64(0..60_000) } else { self.random.u64(0..3_000) };
        *monotonic = self.random.u64(0..1_000_000);
        self.start()
    }

    /// Opens the log, over as many crashes as it takes.
    fn start(&mut self) -> Result<End, String> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let may_spoil = !self.calm && attempts <= SPOILED_STARTS_MAX;
            let spoiled = may_spoil && self.random.u32(0..200) < self.plan.weather.power;
            if spoiled {
                self.disk.lose_power_after(self.random.u64(0..10));
            }
            let opened = Owner::open(Arc::clone(&self.files), &self.folder, self.owner_options(), self.clocks);
            match opened {
                Ok(owner) => {
                    self.owner = Some(owner);
                    self.started()?;
                    return Ok(End::Peaceful);
                }
                Err(error) if attempts == STARTS_MAX => return Err(format!("the log never opens: {error}")),
                Err(error) => {
                    self.tally.failed_opens += 1;
                    if let Some(end) = self.start_failed(&error, spoiled)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// A start failed. That is right only where the disk gave a reason; `Some` is the seed's end.
    fn start_failed(&mut self, error: &OwnerError, spoiled: bool) -> Result<Option<End>, String> {
        let damaged = matches!(error, OwnerError::Open(OpenError::Damaged { .. }));
        if self.misdirected && damaged {
            return Ok(Some(End::Refused));
        }
        let full = self.full_until.is_some()
            && matches!(error, OwnerError::Open(OpenError::Io { .. }) | OwnerError::Append(_));
        if damaged || !(spoiled || full || self.fault_is_pending(error)) {
            return Err(format!("the log does not open: {error}"));
        }
        if let Some(foresight) = &mut self.foresight {
            foresight.open_failed(self.clocks);
        }
        if full {
            self.give_room();
        }
        if self.power_is_gone() || self.random.bool() {
            self.disk.lose_power();
        } else {
            self.disk.kill_process();
        }
        self.clocks.0 += self.random.u64(0..2_000);
        Ok(None)
    }

    /// A write or sync that was to fail before the crash may fail the start instead.
    fn fault_is_pending(&self, error: &OwnerError) -> bool {
        !self.calm && matches!(error, OwnerError::Open(OpenError::Io { .. }) | OwnerError::Append(_))
    }

    /// What a fresh start must have found.
    fn started(&mut self) -> Result<(), String> {
        let owner = self.owner.as_ref().ok_or("the owner is not running")?;
        self.shoppers.check_durable(owner.core())?;
        if let Some(foresight) = &mut self.foresight {
            foresight.opened(self.clocks, owner.core())?;
        }
        if self.power_is_gone() {
            return Ok(());
        }
        // A reader by files must find the same chain, to the last record.
        let next = owner.log().next();
        let mut reader = LogReader::open(Arc::clone(&self.files), &self.folder).map_err(|error| error.to_string())?;
        while reader.next_batch(next).map_err(|error| error.to_string())?.is_some() {}
        if reader.next() == next { Ok(()) } else { Err(format!("readers find {} of {next} records", reader.next())) }
    }

    /// Faults end; clients ask until they know; for some seeds the sale is lived to its end; then one last restart.
    pub(crate) fn last_days(&mut self) -> Result<End, String> {
        self.calm = true;
        self.give_room();
        let mut end = End::Peaceful;
        if self.power_is_gone() {
            end = self.crash()?;
        }
        self.disk.clear_faults();
        if end == End::Refused || self.answer_all()? == End::Refused {
            return Ok(End::Refused);
        }
        if self.random.bool() && self.live_to_the_end()? == End::Refused {
            return Ok(End::Refused);
        }
        self.shoppers.ask_all_again();
        if self.crash()? == End::Refused || self.answer_all()? == End::Refused {
            return Ok(End::Refused);
        }
        let owner = self.owner.as_ref().ok_or("the owner is not running")?;
        if let Some(foresight) = &self.foresight {
            foresight.compare_all(owner)?;
        }
        Ok(End::Peaceful)
    }

    /// Every client gets one answer.
    fn answer_all(&mut self) -> Result<End, String> {
        for _ in 0..20 {
            let (wall, time) = (self.clocks.0, self.note_time());
            for (request, ticket) in self.shoppers.unanswered(&mut self.random, &self.plan, wall, time) {
                self.through_gate(request, ticket, time)?;
            }
            self.pass_time(100);
            if self.step()? == End::Refused {
                return Ok(End::Refused);
            }
            if self.shoppers.all_answered() {
                return Ok(End::Peaceful);
            }
        }
        Err("INV-5: clients ask and ask, and some never learn how their purchase ended".to_owned())
    }

    fn live_to_the_end(&mut self) -> Result<End, String> {
        for _ in 0..400 {
            let settled = self.owner.as_ref().is_some_and(|owner| owner.core().state().phase == SalePhase::Settled);
            if settled {
                self.tally.settled += 1;
                break;
            }
            if let Some(owner) = &self.owner {
                self.inbox.extend(provider_reports(&mut self.random, owner.core()));
            }
            self.pass_time(2_500);
            if self.step()? == End::Refused {
                return Ok(End::Refused);
            }
        }
        Ok(End::Peaceful)
    }
}
