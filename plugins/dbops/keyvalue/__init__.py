"""Rows as items of a key-value store, and the rules under which older data never overwrites newer.

A library for applications, the backfill and whatever applies a change stream: plain Python, no Airflow, no connections of its own. Clients
and the access to MySQL are arguments. `docs/keyvalue.md` has the rule table and examples.

    codec.py       a MySQL value as an attribute, exact in both directions
    items.py       canonical form, hash, size of an item
    keys.py        key templates: different rows never get one key
    rules.py       versions, tombstones, conditions: what may be written over what
    views.py       a row of a query as an item, and back
    stores.py      DynamoDB, Redis and memory behind one protocol
    repository.py  the read path and the two write paths of an application
    counting.py    an application reports what its repository counted
"""
