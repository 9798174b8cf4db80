"""AWS Lambda function: applies what AWS DMS writes to a Kinesis stream to DynamoDB, so that older data never overwrites newer.

Standard library and boto3 only: the folder is deployed as it is (README.md beside this file).
"""
