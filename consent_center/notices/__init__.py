"""Notices from draft to publication: preview, what changed in words and in meaning, who must be asked
again.
"""
