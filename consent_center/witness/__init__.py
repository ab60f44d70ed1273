"""Witnesses (C2SP tlog-witness): cosigning other centers' logs, having the own one cosigned."""
