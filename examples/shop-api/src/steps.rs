//! What the steps of sagas say to each other, in the modes saga and mixed. It travels as JSON.

use serde::{Deserialize, Serialize};

/// The action that takes goods out of the stock: [`TakeGoods`] to [`Taken`].
pub const TAKE_GOODS: &str = "stock.take";
/// The action that packs a parcel: [`PackParcel`].
pub const PACK_PARCEL: &str = "parcel.pack";
/// The action that writes an order down: [`WriteDown`] to [`WrittenDown`].
pub const WRITE_DOWN: &str = "order.write";
/// The action that takes the money that an order costs: [`TakeMoney`].
pub const TAKE_MONEY: &str = "account.take";

/// The step that writes the order down, by this name in every plan.
pub const ORDER: &str = "order";

/// So many pieces of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeGoods {
    /// The product.
    pub product: i64,
    /// Pieces.
    pub count: i64,
}

/// Goods that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Price of one piece in cents.
    pub unit_price: i64,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product.
    pub product: i64,
    /// Pieces.
    pub count: i64,
    /// The step that took them; its result tells the price.
    pub taken_by: String,
}

/// An order that is to be written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteDown {
    /// The customer's own name for it.
    pub reference: String,
    /// Who ordered.
    pub user: i64,
    /// What.
    pub lines: Vec<Line>,
}

/// An order that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenDown {
    /// Its number.
    pub order: i64,
    /// What it costs, in cents.
    pub paid: i64,
}

/// The money that the step [`ORDER`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeMoney {
    /// Whose.
    pub user: i64,
}

/// A parcel for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackParcel {
    /// The customer's own name for the order.
    pub reference: String,
    /// How many pieces are in it.
    pub pieces: i64,
}

/// An observer hears of a step, as [`Step`](crate::v1::Step) says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The customer's own name for the order.
    pub reference: String,
    /// Which step was done.
    pub name: String,
    /// How many are.
    pub number: u32,
}
