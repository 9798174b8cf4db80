"""AWS Lambda function: applies what AWS DMS writes to a Kinesis stream to Redis or MemoryDB, so that older data never overwrites newer.

Records are read by cdc_apply, values and writes are those of dbops.keyvalue, so that a row looks the same whoever wrote it. README.md
beside this file says what the package is made of.
"""
