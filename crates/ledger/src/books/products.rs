//! The product service: units sold and free of each article, under the names that the shop's catalogue has for it.

use domain::record::{Created, Held};
use domain::{Record, limits};
use rusqlite::{CachedStatement, Connection, params};

use super::projection::{Contradiction, Place, Projection, Service, Stop, definition_of, once};
use super::turns::{OwnOrders, Turn};
use super::{BooksError, OrderStatus};

/// Units of an article, less those that are held or withdrawn.
struct Product {
    sold: u32,
    free: u32,
}

/// One transaction over one sale.
pub(super) struct Products<'c> {
    connection: &'c Connection,
    sale: &'c str,
    products: Vec<Product>,
    orders: OwnOrders<'c>,
    keep: CachedStatement<'c>,
    select: CachedStatement<'c>,
}

impl<'c> Projection<'c> for Products<'c> {
    const SERVICE: Service = Service::Product;

    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError> {
        let products = connection
            .prepare_cached("SELECT sold, free FROM products WHERE sale = ?1 ORDER BY item")?
            .query_map([sale], |row| Ok(Product { sold: row.get(0)?, free: row.get(1)? }))?
            .collect::<Result<_, _>>()?;
        let orders = OwnOrders::in_table(connection, sale, "product_orders")?;
        let keep = connection.prepare_cached(
            "INSERT INTO product_orders (sale, number, purchase, item, quantity, status) VALUES (?1, ?2, ?3, ?4, ?5, 'held')",
        )?;
        let select =
            connection.prepare_cached("SELECT item, quantity FROM product_orders WHERE sale = ?1 AND number = ?2")?;
        Ok(Self { connection, sale, products, orders, keep, select })
    }

    fn record(&mut self, record: Record, _: Place) -> Result<(), Stop> {
        match &record {
            Record::Created(created) => self.created(created),
            Record::Held(held) => self.held(held),
            Record::StockChanged { item, added, withdrawn } => self.stock_changed(*item, *added, withdrawn.len()),
            _ => Turn::of(&record).map_or(Ok(()), |turn| self.turn(&turn)),
        }
    }

    fn finish(self) -> Result<(), BooksError> {
        let mut update =
            self.connection.prepare_cached("UPDATE products SET sold = ?3, free = ?4 WHERE sale = ?1 AND item = ?2")?;
        for (index, product) in self.products.iter().enumerate() {
            update.execute(params![self.sale, index, product.sold, product.free])?;
        }
        Ok(())
    }
}

impl Products<'_> {
    fn created(&mut self, created: &Created) -> Result<(), Stop> {
        if !self.products.is_empty() {
            return Err(Contradiction::CreatedAgain.into());
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO products (sale, item, name, sku, external_id, sold, free) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)",
        )?;
        for (index, item) in definition_of(created)?.items.iter().enumerate() {
            insert.execute(params![self.sale, index, item.item, item.sku, item.external_id, item.stock])?;
            self.products.push(Product { sold: 0, free: item.stock });
        }
        Ok(())
    }

    fn held(&mut self, held: &Held) -> Result<(), Stop> {
        let quantity = held.units.len() as u32;
        self.check_free(held.item, quantity)?;
        let row = params![self.sale, held.number.0, held.purchase.0, held.item, quantity];
        once(self.keep.execute(row), held.number)?;
        self.products[usize::from(held.item)].free -= quantity;
        Ok(())
    }

    fn turn(&mut self, turn: &Turn) -> Result<(), Stop> {
        if !self.orders.check(turn)? {
            return Err(Contradiction::NumberUnknown(turn.number.0).into());
        }
        let (item, quantity): (u16, u32) =
            self.select.query_row(params![self.sale, turn.number.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if turn.from == OrderStatus::Released {
            self.check_free(item, quantity)?;
        }
        self.orders.turn(turn)?;
        let product = &mut self.products[usize::from(item)];
        if turn.from == OrderStatus::Released {
            product.free -= quantity;
        }
        match turn.to {
            OrderStatus::Released => product.free += quantity,
            OrderStatus::Confirmed => product.sold += quantity,
            OrderStatus::Held => {}
        }
        Ok(())
    }

    fn stock_changed(&mut self, item: u16, added: u32, withdrawn: usize) -> Result<(), Stop> {
        let free = self.product(item)?.free.saturating_add(added);
        if free > limits::UNITS_PER_ITEM_MAX {
            return Err(Contradiction::OutOfRange.into());
        }
        let wanted = u32::try_from(withdrawn).map_err(|_| Contradiction::OutOfRange)?;
        let left = free.checked_sub(wanted).ok_or(Contradiction::NotFree { item, wanted, free })?;
        self.product(item)?.free = left;
        Ok(())
    }

    fn check_free(&mut self, item: u16, wanted: u32) -> Result<(), Contradiction> {
        let free = self.product(item)?.free;
        if wanted <= free { Ok(()) } else { Err(Contradiction::NotFree { item, wanted, free }) }
    }

    fn product(&mut self, item: u16) -> Result<&mut Product, Contradiction> {
        self.products.get_mut(usize::from(item)).ok_or(Contradiction::ItemUnknown(item))
    }
}
