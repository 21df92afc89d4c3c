"""The paper IB Gateway: it logs in at the paper exchange and speaks the TWS API's wire protocol."""
