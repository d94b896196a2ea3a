//! Makes integer overflow an error: in the engine, arithmetic and sums of integers wrap around.
//!
//! Sums, differences, products and `sum()` of integers are computed as decimals of 38 digits, which 64-bit operands
//! cannot exceed. The conversion back fails if the result does not fit.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection, WindowFunctionDefinition, cast, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::Column;
use std::sync::Arc;

/// The type that can represent every 64-bit integer, signed or unsigned.
const WIDE: DataType = DataType::Decimal128(20, 0);

/// Makes integer arithmetic fail where it would wrap around. Runs after type coercion.
#[derive(Debug)]
pub(super) struct CheckedIntegers;

impl AnalyzerRule for CheckedIntegers {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(check_node).map(|checked| checked.data)
    }

    fn name(&self) -> &'static str {
        "checked_integers"
    }
}

fn check_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let before = Arc::clone(plan.schema());
    let mut inputs = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        inputs.merge(&scan.projected_schema);
    }
    let names = NamePreserver::new(&plan);
    let checked = plan.map_expressions(|expr| {
        if matches!(expr, Expr::GroupingSet(_)) {
            // Otherwise the names of its parts would also have to be kept.
            let checked = expr.clone().transform_up(|expr| check_expr(expr, &inputs))?;
            return match checked.transformed {
                true => plan_err!("ROLLUP, CUBE and GROUPING SETS cannot contain arithmetic: calculate in a subquery"),
                false => Ok(Transformed::no(expr)),
            };
        }
        let name = names.save(&expr);
        let checked = expr.transform_up(|expr| check_expr(expr, &inputs))?;
        Ok(if checked.transformed { checked.update_data(|expr| name.restore(expr)) } else { checked })
    })?;
    if !checked.transformed {
        return Ok(checked);
    }
    let plan = checked.data.recompute_schema()?;
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => narrow(plan, &before).map(Transformed::yes),
        plan => Ok(Transformed::yes(plan)),
    }
}

/// Converts widened sums back to their original types.
fn narrow(plan: LogicalPlan, before: &DFSchema) -> Result<LogicalPlan> {
    let columns = plan.schema().iter().zip(before.iter());
    let columns: Vec<Expr> = columns
        .map(|((qualifier, field), (_, was))| {
            let column = Expr::Column(Column::from((qualifier, field)));
            match field.data_type() == was.data_type() {
                true => column,
                false => cast(column, was.data_type().clone()).alias_qualified(qualifier.cloned(), field.name()),
            }
        })
        .collect();
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
}

fn check_expr(expr: Expr, inputs: &DFSchema) -> Result<Transformed<Expr>> {
    let is_integer = |expr: &Expr| expr.get_type(inputs).is_ok_and(|of| of.is_integer());
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && is_integer(&left)
                && is_integer(&right) =>
        {
            let of = BinaryExpr::new(left.clone(), op, right.clone());
            let of = Expr::BinaryExpr(of).get_type(inputs)?;
            let wide = BinaryExpr::new(Box::new(cast(*left, WIDE)), op, Box::new(cast(*right, WIDE)));
            Ok(Transformed::yes(cast(Expr::BinaryExpr(wide), of)))
        }
        Expr::Negative(number) if is_integer(&number) => {
            let of = number.get_type(inputs)?;
            let wide =
                BinaryExpr::new(Box::new(cast(lit(0_i64), WIDE)), Operator::Minus, Box::new(cast(*number, WIDE)));
            Ok(Transformed::yes(cast(Expr::BinaryExpr(wide), of)))
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params })
            if func.name() == "sum" && params.args.iter().all(is_integer) =>
        {
            widen(&mut params.args);
            Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
        }
        Expr::WindowFunction(mut window) if is_window_sum(&window) && window.params.args.iter().all(is_integer) => {
            widen(&mut window.params.args);
            Ok(Transformed::yes(Expr::WindowFunction(window)))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn is_window_sum(window: &WindowFunction) -> bool {
    matches!(&window.fun, WindowFunctionDefinition::AggregateUDF(of) if of.name() == "sum")
}

fn widen(args: &mut [Expr]) {
    for arg in args {
        *arg = cast(std::mem::take(arg), WIDE);
    }
}
