"""How consent is going: rates, withdrawals, funnels, A/B of notices. Numbers of events and people,
never people.
"""
