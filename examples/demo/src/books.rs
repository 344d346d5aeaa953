//! Goods and money over all three databases.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use shop_api::v1::Item;

/// A product of the shop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) unit_price: i64,
    pub(crate) count: i64,
    /// In mixed modes it is promised in 3PC; other goods are taken in AT.
    pub(crate) promised: bool,
}

pub(crate) const TEAPOT: Product = product(1, "teapot", 2_450, 100);
pub(crate) const CUP: Product = product(2, "cup", 690, 500);
/// Fewer than the customers who want it at once.
pub(crate) const LAST_TICKETS: Product = product(3, "ticket", 5_000, 48);
pub(crate) const SEAT: Product = Product {
    promised: true,
    ..product(4, "seat", 3_500, 200)
};
pub(crate) const PRODUCTS: [Product; 4] = [TEAPOT, CUP, LAST_TICKETS, SEAT];

const fn product(number: i64, name: &'static str, unit_price: i64, count: i64) -> Product {
    Product {
        number,
        name,
        unit_price,
        count,
        promised: false,
    }
}

/// Customers with enough money, 1 to this.
pub(crate) const RICH_USERS: i64 = 64;
const RICH: i64 = 1_000_000;
/// A customer who cannot pay.
pub(crate) const POOR_USER: i64 = 100;
const POOR: i64 = 500;

/// What one order took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) user: i64,
    pub(crate) paid: i64,
    /// Product and count, in the order's own sequence.
    pub(crate) items: Vec<(i64, i64)>,
}

/// What the three databases hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) stock: BTreeMap<i64, i64>,
    pub(crate) balances: BTreeMap<i64, i64>,
    /// By the customer's reference.
    pub(crate) orders: BTreeMap<String, Ordered>,
    /// Pieces in each order's parcel; orders have parcels in mixed modes only.
    pub(crate) parcels: Option<BTreeMap<String, i64>>,
}

/// Customers with their money at the beginning.
pub(crate) fn users() -> impl Iterator<Item = (i64, i64)> {
    (1..=RICH_USERS)
        .map(|user| (user, RICH))
        .chain([(POOR_USER, POOR)])
}

impl Books {
    /// What must always hold once nothing is under way: goods = remaining +
    /// ordered, money = balances + paid, every order cost what its items cost, and
    /// if there are parcels every order has one.
    pub(crate) fn check(&self) -> Result<()> {
        let mut ordered: BTreeMap<i64, i64> = BTreeMap::new();
        let mut paid: BTreeMap<i64, i64> = BTreeMap::new();
        for (reference, order) in &self.orders {
            for (product, count) in &order.items {
                *ordered.entry(*product).or_default() += count;
            }
            *paid.entry(order.user).or_default() += order.paid;
            let cost: i64 = order
                .items
                .iter()
                .map(|(product, count)| price(*product) * count)
                .sum();
            ensure!(
                cost == order.paid && !order.items.is_empty(),
                "order {reference} paid {} for goods of {cost}",
                order.paid
            );
        }
        for product in PRODUCTS {
            let left = self.stock.get(&product.number).copied().unwrap_or_default();
            let gone = ordered.remove(&product.number).unwrap_or_default();
            ensure!(
                left >= 0 && left + gone == product.count,
                "goods: {} {}s = {left} left + {gone} ordered does not hold",
                product.count,
                product.name
            );
        }
        for (user, initial) in users() {
            let left = self.balances.get(&user).copied().unwrap_or_default();
            let gone = paid.remove(&user).unwrap_or_default();
            ensure!(
                left >= 0 && left + gone == initial,
                "money: {initial} of user {user} = {left} left + {gone} paid does not hold"
            );
        }
        ensure!(
            ordered.is_empty() && paid.is_empty(),
            "orders name unknown products or users"
        );
        let Some(parcels) = &self.parcels else {
            return Ok(());
        };
        let due: BTreeMap<String, i64> = self
            .orders
            .iter()
            .map(|(reference, order)| (reference.clone(), pieces(&order.items)))
            .collect();
        ensure!(
            *parcels == due,
            "parcels: {parcels:?} were packed, {due:?} were ordered"
        );
        Ok(())
    }

    /// The books after one more order.
    pub(crate) fn with(mut self, reference: &str, user: i64, items: &[Item]) -> Self {
        let items: Vec<(i64, i64)> = items
            .iter()
            .map(|item| (item.product, item.count))
            .collect();
        let paid = items
            .iter()
            .map(|(product, count)| price(*product) * count)
            .sum();
        for (product, count) in &items {
            *self.stock.entry(*product).or_default() -= count;
        }
        *self.balances.entry(user).or_default() -= paid;
        if let Some(parcels) = &mut self.parcels {
            parcels.insert(reference.to_owned(), pieces(&items));
        }
        self.orders
            .insert(reference.to_owned(), Ordered { user, paid, items });
        self
    }
}

fn pieces(items: &[(i64, i64)]) -> i64 {
    items.iter().map(|(_, count)| count).sum()
}

fn price(product: i64) -> i64 {
    PRODUCTS
        .iter()
        .find(|one| one.number == product)
        .map_or(0, |one| one.unit_price)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Before the first order.
    pub(crate) fn full() -> Books {
        Books {
            stock: PRODUCTS.iter().map(|one| (one.number, one.count)).collect(),
            balances: users().collect(),
            orders: BTreeMap::new(),
            parcels: Some(BTreeMap::new()),
        }
    }

    pub(crate) fn items() -> Vec<Item> {
        vec![
            Item {
                product: 1,
                count: 2,
            },
            Item {
                product: 2,
                count: 3,
            },
        ]
    }

    #[test]
    fn whole_orders_keep_the_books() {
        full().check().expect("nothing happened");
        let books = full().with("a", 7, &items());
        books.check().expect("one order");
        assert_eq!(books.stock[&1], 98);
        assert_eq!(books.balances[&7], RICH - 2 * 2_450 - 3 * 690);
        assert_eq!(books.parcels.as_ref().map(|parcels| parcels["a"]), Some(5));
    }

    #[test]
    fn every_half_order_is_found() {
        let whole = full().with("a", 7, &items());
        let goods_only = Books {
            stock: whole.stock.clone(),
            ..full()
        };
        let money_only = Books {
            balances: whole.balances.clone(),
            ..full()
        };
        let order_only = Books {
            orders: whole.orders.clone(),
            ..full()
        };
        let mut cheap = whole.clone();
        cheap.orders.get_mut("a").expect("there").paid -= 1;
        let mut unpacked = whole.clone();
        unpacked.parcels = Some(BTreeMap::new());
        let mut stranger = full();
        stranger = stranger.with("b", 9_999, &items());
        for (books, expected) in [
            (goods_only, "goods: 100 teapots"),
            (money_only, "money:"),
            (order_only, "goods:"),
            (cheap, "order a paid"),
            (unpacked, "parcels: {} were packed, {\"a\": 5}"),
            (stranger, "unknown"),
        ] {
            let error = books.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
