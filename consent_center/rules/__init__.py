"""Rules of the house: a declarative file that allows, denies and limits by purpose, recipient, region,
category, time.
"""
